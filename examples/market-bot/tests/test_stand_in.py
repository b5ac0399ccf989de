"""The stand-in for Telegram: offsets, 409, long polling, and who was answered how often."""

import threading
import time

from conftest import eventually


def test_an_update_is_delivered_until_a_higher_offset_confirms_it(telegram):
    first = telegram.post("/inject", chat=7, text="one")
    second = telegram.post("/inject", chat=7, text="two")
    for _ in range(2):
        updates = telegram.call("getUpdates")[1]["result"]
        assert [update["message"]["text"] for update in updates] == ["one", "two"]
    updates = telegram.call("getUpdates", offset=second["update_id"])[1]["result"]
    assert [update["update_id"] for update in updates] == [second["update_id"]]
    assert telegram.call("getUpdates", offset=second["update_id"] + 1)[1]["result"] == []
    messages = telegram.get("/messages")
    assert [message["deliveries"] for message in messages] == [2, 3]
    assert all(message["confirmed_at"] for message in messages)
    assert messages[0]["id"] == first["id"]


def test_limit_and_negative_offset(telegram):
    for number in range(4):
        telegram.post("/inject", text=str(number))
    assert len(telegram.call("getUpdates", limit=3)[1]["result"]) == 3
    last = telegram.call("getUpdates", offset=-1)[1]["result"]
    assert [update["message"]["text"] for update in last] == ["3"]
    assert telegram.get("/counts")["pending"] == 1


def test_a_long_poll_waits_for_the_message_or_for_its_end(telegram):
    began = time.monotonic()
    assert telegram.call("getUpdates", timeout=0.3)[1]["result"] == []
    assert 0.25 < time.monotonic() - began < 2
    timer = threading.Timer(0.1, telegram.post, ["/inject"])
    timer.start()
    began = time.monotonic()
    assert len(telegram.call("getUpdates", timeout=20)[1]["result"]) == 1
    assert time.monotonic() - began < 5
    timer.join()


def test_two_pollers_conflict_and_the_older_one_is_ended(telegram):
    older = []
    thread = threading.Thread(target=lambda: older.append(telegram.call("getUpdates", timeout=20)))
    thread.start()
    eventually(lambda: telegram.get("/counts")["polling"])
    status, _ = telegram.call("getUpdates", timeout=0.1)
    thread.join(5)
    assert status == 200
    assert older[0][0] == 409
    assert older[0][1]["description"].startswith("Conflict: terminated by other getUpdates request")
    assert telegram.get("/counts")["conflicts"] == 1


def test_a_poller_that_hangs_up_is_no_conflict_and_is_given_nothing(telegram):
    import socket

    host, port = telegram.api.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET /bot1000001:test-token/getUpdates?timeout=20 HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: telegram.get("/counts")["polling"])
    eventually(lambda: not telegram.get("/counts")["polling"])
    telegram.post("/inject")
    assert telegram.get("/counts")["delivered"] == 0
    assert len(telegram.call("getUpdates", timeout=0.1)[1]["result"]) == 1
    assert telegram.get("/counts")["conflicts"] == 0


def test_a_client_that_hangs_up_and_asks_at_once_is_one_poller(telegram):
    import socket

    host, port = telegram.api.removeprefix("http://").split(":")
    for _ in range(20):
        connection = socket.create_connection((host, int(port)))
        connection.sendall(b"GET /bot1000001:test-token/getUpdates?timeout=20 HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: telegram.get("/counts")["polling"])
        connection.close()
        telegram.call("getUpdates", timeout=0)
    assert telegram.get("/counts")["conflicts"] == 0


def test_answers_are_counted_by_message(telegram):
    one = telegram.call("getUpdates")[1]["result"] or telegram.post("/inject", chat=7, text="hello", id="one")
    telegram.post("/inject", chat=8, text="hello", id="two")
    telegram.post("/inject", chat=9, text="hello", id="three")
    assert one["id"] == "one"
    updates = telegram.call("getUpdates")[1]["result"]
    reply = {"message_id": updates[0]["message"]["message_id"]}
    for _ in range(2):
        telegram.call("sendMessage", chat_id=7, text="hi", reply_parameters=reply)
    telegram.call("sendMessage", chat_id=8, text="about two: hi")
    telegram.call("sendMessage", chat_id=8, text="nobody asked")
    counts = telegram.get("/counts")
    expected = {"sent": 3, "answered": 2, "answered_twice": 1, "unanswered": 1, "strays": 1}
    assert {name: counts[name] for name in expected} == expected
    assert [answer["id"] for answer in telegram.get("/answers")] == ["one", "one", "two", None]
    by_id = {message["id"]: message for message in telegram.get("/messages")}
    assert by_id["one"]["injected_at"] <= by_id["one"]["delivered_at"] <= by_id["one"]["answered_at"]
    assert by_id["three"]["answered_at"] is None


def test_a_stream_keeps_its_rate_and_its_count(telegram):
    began = time.monotonic()
    telegram.post("/stream", per_second=100, count=50)
    eventually(lambda: telegram.get("/counts")["sent"] == 50)
    assert time.monotonic() - began > 0.45
    telegram.post("/stream", per_second=100)
    eventually(lambda: telegram.get("/counts")["sent"] > 60)
    telegram.post("/stream/stop")
    sent = telegram.get("/counts")["sent"]
    assert telegram.get("/counts")["sent"] == sent


def test_bots_are_apart_and_update_ids_never_come_twice(telegram):
    telegram.post("/inject?bot=77", text="for another")
    assert telegram.call("getUpdates")[1]["result"] == []
    assert len(telegram.call("getUpdates", token="77:x")[1]["result"]) == 1
    before = telegram.post("/inject")["update_id"]
    telegram.post("/reset")
    assert telegram.post("/inject")["update_id"] > before


def test_what_a_bot_asks_at_its_start(telegram):
    assert telegram.call("getMe")[1]["result"]["is_bot"] is True
    assert telegram.call("deleteWebhook", drop_pending_updates=False)[1]["result"] is True
    telegram.post("/inject")
    assert telegram.call("deleteWebhook", drop_pending_updates=True)[1]["result"] is True
    assert telegram.call("getUpdates")[1]["result"] == []


def test_faults_are_answered_as_telegram_does(telegram):
    assert telegram.call("sendMessage", chat_id=1, text="")[0] == 400
    assert telegram.call("sendMessage", text="x")[0] == 400
    assert telegram.call("noSuchMethod")[0] == 404
    assert telegram.call("getMe", token="no-token")[0] == 404
