# Asks URL every INTERVAL seconds, four times as often as long as nothing good comes, and prints "<status> <body in one line>"; ends with its stdin.
import http.client
import os
import select
import ssl
import sys
import time
from urllib.parse import urlsplit

interval = float(sys.argv[1])
url = urlsplit(sys.argv[2])
path = (url.path or "/") + ("?" + url.query if url.query else "")
lines = bytes.maketrans(b"\r\n\0", b"   ")
while True:
    began = time.monotonic()
    connection = None
    try:
        if url.scheme == "https":
            # Inside the container, by its own name: what is asked is whether it answers, not who it is.
            connection = http.client.HTTPSConnection(
                url.hostname, url.port, timeout=5, context=ssl._create_unverified_context()
            )
        else:
            connection = http.client.HTTPConnection(url.hostname, url.port, timeout=5)
        connection.request("GET", path)
        response = connection.getresponse()
        status, body = response.status, response.read(65536)
    except Exception as error:
        status, body = 0, str(error).encode()
    finally:
        if connection is not None:
            connection.close()
    try:
        sys.stdout.buffer.write(b"%03d %s\n" % (status, body.translate(lines)))
        sys.stdout.buffer.flush()
    except OSError:
        break
    pause = interval if 200 <= status < 300 else interval / 4
    left = max(0.0, pause - (time.monotonic() - began))
    if select.select([0], [], [], left)[0]:
        if not os.read(0, 512):
            break
