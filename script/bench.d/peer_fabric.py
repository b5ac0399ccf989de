"""HOME PORT "KEX CIPHER MAC" COMMAND ADDRESS...: the command on each, at once."""
import sys

import paramiko
from fabric import Config, ThreadingGroup

home, port, _, command, *addresses = sys.argv[1:]
config = Config(overrides={"load_ssh_configs": False})
group = ThreadingGroup(
    *addresses, user="root", port=int(port), config=config,
    connect_kwargs={"key_filename": f"{home}/id", "allow_agent": False, "look_for_keys": False})
for connection in group:
    connection.client.load_host_keys(f"{home}/known_hosts")
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
for done in group.run(command, hide=True).values():
    print(done.stdout, end="")
