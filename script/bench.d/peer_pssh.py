"""HOME PORT "KEX CIPHER MAC" COMMAND ADDRESS...: the command on each, at once. Checks no host key: its library has no way to."""
import sys

from pssh.clients import ParallelSSHClient

home, port, _, command, *addresses = sys.argv[1:]
client = ParallelSSHClient(addresses, port=int(port), user="root", pkey=f"{home}/id", pool_size=len(addresses), allow_agent=False, num_retries=1)
failed = False
for host in client.run_command(command):
    for line in host.stdout:
        print(line)
    failed = failed or host.exit_code != 0
sys.exit(failed)
