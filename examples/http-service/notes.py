"""A notes service: GET /notes, POST /notes (the body is the note), GET /health. Python's standard library and PostgreSQL."""

# First of all: PID 1 has no default action for SIGTERM; a stop during the imports would be lost.
import os
import signal

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg

VERSION = os.environ.get("NOTES_VERSION", "development")
DATABASE_URL = os.environ["DATABASE_URL"]
BEGAN = time.monotonic()


def database() -> psycopg.Connection:
    return psycopg.connect(DATABASE_URL, connect_timeout=2, options="-c statement_timeout=5s")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 2  # seconds that an idle connection is kept, also at the end

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/health":
            self.health()
        elif url.path == "/notes":
            self.guarded(lambda: self.notes(urllib.parse.parse_qs(url.query)))
        else:
            self.answer(404, {"error": "/notes and /health are here"})

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 65536)).decode()
        if self.path != "/notes" or not body.strip():
            self.answer(400, {"error": "POST a note to /notes"})
        else:
            self.guarded(lambda: self.add(body.strip()))

    def notes(self, query: dict[str, list[str]]) -> None:
        with database() as connection:
            rows = connection.execute("SELECT id, body FROM notes ORDER BY id DESC LIMIT 100").fetchall()
        self.answer(200, [{"id": id, "body": body} for id, body in rows])

    def add(self, note: str) -> None:
        with database() as connection:
            (id,) = connection.execute("INSERT INTO notes (body) VALUES (%s) RETURNING id", [note]).fetchone()
        self.answer(201, {"id": id})

    def health(self) -> None:
        document = {"status": "up", "version": VERSION, "uptime": {"seconds": round(time.monotonic() - BEGAN, 3)}}
        try:
            with database() as connection:
                (document["schema"],) = connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
            document["database"] = {"reachable": True}
            self.answer(200, document)
        except psycopg.Error as error:
            document |= {"status": "down", "database": {"reachable": False, "error": type(error).__name__}}
            self.answer(503, document)

    def guarded(self, work) -> None:
        try:
            work()
        except psycopg.OperationalError:
            self.answer(503, {"error": "the database is away"})

    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Version", VERSION)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        print(json.dumps({"time": time.time(), "status": arguments[1] if len(arguments) > 1 else None}), flush=True)


def main() -> None:
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler)
    server.daemon_threads = False  # requests in hand are finished
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    main()
