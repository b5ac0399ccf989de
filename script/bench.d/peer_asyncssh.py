"""HOME PORT "KEX CIPHER MAC" COMMAND ADDRESS...: the command on each, at once."""
import asyncio
import sys

import asyncssh

home, port, algorithms, command, *addresses = sys.argv[1:]
kex, cipher, mac = algorithms.split()


async def one(address):
    async with asyncssh.connect(
            address, int(port), username="root", client_keys=[f"{home}/id"], known_hosts=f"{home}/known_hosts", agent_path=None, config=None,
            kex_algs=[kex], encryption_algs=[cipher], mac_algs=[mac], server_host_key_algs=["ssh-ed25519"]) as connection:
        done = await connection.run(command, check=True)
        print(done.stdout, end="")


async def every():
    await asyncio.gather(*(one(address) for address in addresses))


asyncio.run(every())
