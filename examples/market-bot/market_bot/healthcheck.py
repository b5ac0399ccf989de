"""For Docker's health check: exit 0 if /health answers 200. Only what it needs is imported: this runs every few seconds."""

import os
import socket
import sys

with socket.create_connection(("127.0.0.1", int(os.environ.get("HEALTH_PORT", "8000"))), timeout=3) as connection:
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = b""
    while part := connection.recv(65536):
        answer += part
print(answer.partition(b"\r\n\r\n")[2].decode())
sys.exit(0 if answer.startswith(b"HTTP/1.1 200 ") else 1)
