"""reverse-proxy on a fresh droplet: nginx, certificates by pebble (a real ACME server, in the sandbox) through the real certbot, and given ones.

Visitors come from this machine, by the droplet's address.
"""

import http.client
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import SHELLS, assignments, sandbox
from system_cycle import content, mended, plan, settled

pytestmark = pytest.mark.sandbox
DOMAIN, ALIAS = "shop.test", "www.shop.test"
SITE = f"/etc/nginx/conf.d/orchestrate-{DOMAIN}.conf"
TLS = f"/etc/orchestrate/proxy/{DOMAIN}/tls"
FLAG = f"/var/lib/orchestrate-proxy/flags/{DOMAIN}/maintenance"
PLACES = "/etc/nginx /etc/orchestrate /etc/systemd /var/lib/orchestrate-proxy"
RELOAD = "run reload of nginx"
LETSENCRYPT = "/etc/letsencrypt/live /etc/letsencrypt/archive /etc/letsencrypt/renewal"
DROP_IN = "/etc/systemd/system/certbot.service.d/orchestrate.conf"

# Answers with what it was told; /upgrade speaks back what it hears.
APPLICATION = '''
import http.server, socketserver
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/upgrade":
            self.send_response(101); self.send_header("Upgrade", "echo"); self.send_header("Connection", "upgrade"); self.end_headers()
            self.wfile.write(b"heard " + self.rfile.read(5)); self.close_connection = True; return
        body = "".join(f"{name}: {value}\\n" for name, value in self.headers.items()).encode()
        self.send_response(503 if self.path == "/busy" else 200)
        if self.path == "/own": self.send_header("Referrer-Policy", "no-referrer"); self.send_header("Strict-Transport-Security", "max-age=1")
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *a): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer): daemon_threads = True
Server(("127.0.0.1", 8000), Handler).serve_forever()
'''


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.text = response.status, response.headers, response.read().decode(errors="replace")


class Visitor:
    """Somebody outside, who trusts one authority."""

    def __init__(self, address, authority, name=DOMAIN):
        self.address, self.name = address, name
        self.trust = ssl.create_default_context(cadata=authority)

    def connect(self):
        return self.trust.wrap_socket(socket.create_connection((self.address, 443), 5), server_hostname=self.name)

    def get(self, path="/", method="GET", headers=None):
        connection = http.client.HTTPSConnection(self.name, timeout=10)
        connection.sock = self.connect()
        connection.request(method, path, headers=headers or {})
        answer = Answer(connection.getresponse())
        connection.close()
        return answer

    def plain(self, path="/", host=None):
        connection = http.client.HTTPConnection(self.address, timeout=10)
        connection.request("GET", path, headers={"Host": host or self.name})
        answer = Answer(connection.getresponse())
        connection.close()
        return answer

    def serial(self):
        with self.connect() as connection:
            return connection.getpeercert()["serialNumber"]

    def names(self):
        with self.connect() as connection:
            return {value for _, value in connection.getpeercert()["subjectAltName"]}


@pytest.fixture(scope="module")
def acme():
    values = assignments(sandbox("acme", "up").stdout)
    return {"directory": values["ACME_DIRECTORY"], "ca": Path(values["ACME_CA"]).read_text(), "root": Path(values["ACME_ROOT"]).read_text()}


@pytest.fixture(scope="module")
def host(droplet, acme):
    for name in (DOMAIN, ALIAS, "other.test"):
        sandbox("acme", "name", name, droplet.name)
    droplet.sh("apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install busybox python3 >/dev/null 2>&1; useradd -m shipper")
    droplet.write("/opt/application.py", APPLICATION)
    droplet.write("/etc/systemd/system/application.service", "[Service]\nExecStart=/usr/bin/python3 /opt/application.py\n[Install]\nWantedBy=multi-user.target\n")
    droplet.sh("systemctl -q daemon-reload; systemctl -q enable --now application")
    return droplet


@pytest.fixture(scope="module")
def params(acme):
    return {"DOMAIN": DOMAIN, "SITES": DOMAIN, "UPSTREAM": "127.0.0.1:8000", "CERTIFICATE": "acme", "ACME_SERVER": acme["directory"], "EMAIL": "ada@shop.test",
            "RATE": 0, "BURST": 0, "HSTS": 15552000, "BODY": 1048576, "TIMEOUT": 60, "USER": "shipper", "PROJECT": "shop"}


@pytest.fixture(scope="module")
def files(acme):
    return {"acme-ca.pem": acme["ca"]}


@pytest.fixture
def visitor(host, acme):
    return Visitor(host.address, acme["root"])


@pytest.fixture
def up(host, params, files):
    """The site stands, as `params` want it."""
    host.apply("reverse-proxy", params, files)
    return host


class TestFromNothing:
    def test_a_certbot_that_no_timer_runs_is_refused(self, host, params, files):
        """As pip and snap bring it."""
        host.write("/usr/local/bin/certbot", "#!/bin/sh\nexit 0\n", 0o755)
        for attempt in (host.plan, host.apply):
            step = attempt("reverse-proxy", params, files, check=False)
            assert step.status == 1 and "there is no certbot.timer" in step.output and "Nothing was changed" in step.output
        assert host.run("command -v nginx", check=False).status != 0
        host.sh("rm /usr/local/bin/certbot")

    def test_planned_on_made_again(self, host, params, files, visitor):
        planned = plan(host, "reverse-proxy", params, files)
        assert planned.subjects[:2] == ["create package nginx", "create package certbot"] and planned.subjects[-1] == f"create certificate of {DOMAIN}"
        step = host.apply("reverse-proxy", params, files)
        assert step.changes == planned.changes
        assert visitor.get().status == 200
        settled(host, "reverse-proxy", params, files)
        assert host.sh("stat -c '%U %a' /etc/letsencrypt/live") == "root 700"

    def test_undone_and_made_again_without_a_new_certificate(self, host, params, files, visitor):
        """The first one is gone with everything but packages and certificate, which authorities count."""
        first = host.sh(f"ls -d {host.state}/deployments/*/01-reverse-proxy/saved | sort -V | head -n 1").removesuffix("/saved")
        serial = visitor.serial()
        for _ in range(2):
            host.script(first, "undo")
        assert not host.exists(SITE) and not host.exists("/etc/orchestrate/proxy")
        assert host.sh("systemctl is-active nginx certbot.timer; systemctl is-enabled nginx certbot.timer", check=False).split() == ["inactive"] * 2 + ["disabled"] * 2
        assert host.exists("/etc/nginx/sites-enabled/default")
        again = host.apply("reverse-proxy", params, files)
        assert f"create certificate of {DOMAIN}" not in again.subjects
        assert visitor.serial() == serial
        settled(host, "reverse-proxy", params, files)

    def test_something_else_on_port_80_is_named(self, host, params, files):
        host.sh("systemctl stop nginx; systemd-run -q --unit=busy busybox httpd -f -p 80 -h /tmp; sleep 0.5")
        for attempt in (host.plan, host.apply):
            step = attempt("reverse-proxy", params, files, check=False)
            assert step.status == 1 and "listens on a port of the web already" in step.output and "busybox" in step.output
        host.sh("systemctl stop busy")
        mended(host, "reverse-proxy", params, files, "true", ["update service nginx.service"])


class TestVisitors:
    def test_http_leads_to_https_but_for_challenges_and_strangers(self, up, visitor):
        answer = visitor.plain("/a?b=c")
        assert (answer.status, answer.headers["Location"]) == (301, f"https://{DOMAIN}/a?b=c")
        up.sh("mkdir -p /var/lib/orchestrate-proxy/acme/.well-known/acme-challenge; echo proof >/var/lib/orchestrate-proxy/acme/.well-known/acme-challenge/x")
        assert visitor.plain("/.well-known/acme-challenge/x").text == "proof\n"
        up.sh("rm -r /var/lib/orchestrate-proxy/acme/.well-known")
        assert visitor.plain("/", host="unknown.test").status == 404
        with pytest.raises(ssl.SSLError):
            Visitor(visitor.address, None, "unknown.test").connect()

    def test_headers_both_ways(self, up, visitor):
        answer = visitor.get("/", headers={"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http", "Forwarded": "for=203.0.113.9"})
        told = dict(line.split(": ", 1) for line in answer.text.splitlines())
        assert told["X-Forwarded-For"] == told["X-Real-IP"] == "10.83.0.1" and told["X-Forwarded-Proto"] == "https"
        assert told["Host"] == DOMAIN and "Forwarded" not in told
        assert answer.headers["Strict-Transport-Security"] == "max-age=15552000"
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and "/" not in answer.headers["Server"]
        own = visitor.get("/own").headers
        assert own.get_all("Referrer-Policy") == ["no-referrer"] and own.get_all("Strict-Transport-Security") == ["max-age=15552000"]

    def test_old_tls_is_refused_and_new_is_spoken(self, up, visitor):
        visitor.trust.set_alpn_protocols(["h2"])
        with visitor.connect() as connection:
            assert connection.version() == "TLSv1.3" and connection.selected_alpn_protocol() == "h2"
        for option, well in (("-tls1_2", True), ("-tls1_1", False)):
            done = subprocess.run(["openssl", "s_client", "-connect", f"{visitor.address}:443", "-servername", DOMAIN, option, "-cipher", "DEFAULT@SECLEVEL=0"],
                                  input=b"", capture_output=True, timeout=20)
            assert (b"Cipher is ECDHE" in done.stdout) == well, done.stdout.decode()

    def test_connections_are_upgraded(self, up, visitor):
        with visitor.connect() as connection:
            connection.sendall(f"GET /upgrade HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello".encode())
            heard = b""
            while b"heard hello" not in heard:
                got = connection.recv(4096)
                assert got, heard
                heard += got
        assert heard.startswith(b"HTTP/1.1 101")

    def test_too_many_requests_get_429(self, host, params, files, visitor):
        step = host.apply("reverse-proxy", {**params, "RATE": 5, "BURST": 10}, files)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: visitor.get().status, range(40)))
        assert set(answers) == {200, 429} and answers.count(200) >= 11
        assert visitor.plain("/").status == 301, "the redirect has no limit"
        time.sleep(1)
        assert visitor.get().status == 200
        step.undo()
        assert [visitor.get().status for _ in range(20)] == [200] * 20

    def test_maintenance_while_the_application_is_down_or_a_flag_says_so(self, up, visitor):
        up.sh("systemctl stop application")
        for method in ("GET", "POST"):
            down = visitor.get("/some/where", method=method)
            assert down.status == 503 and "Back soon" in down.text and down.headers["Retry-After"] == "30"
            assert down.headers["Strict-Transport-Security"] and down.headers["Cache-Control"] == "no-store" and down.headers["Content-Type"].startswith("text/html")
        up.sh("systemctl start application")
        up.until(lambda: visitor.get().status == 200, "it answers again", 10)
        assert "Back soon" not in visitor.get("/busy").text, "a 503 of the application's own passes"
        up.sh(f"su shipper -c 'touch {FLAG}'")
        assert visitor.get().status == 503 and "Back soon" in visitor.get().text
        up.sh(f"su shipper -c 'rm {FLAG}'")
        assert visitor.get().status == 200
        assert visitor.get("/.orchestrate/maintenance.html").status == 404

    def test_a_page_of_the_projects_own(self, up, params, files, visitor):
        step = up.apply("reverse-proxy", params, {**files, "maintenance.html": "<p>closed</p>"})
        assert step.subjects == [f"update file /etc/orchestrate/proxy/{DOMAIN}/maintenance.html"]
        up.sh(f"touch {FLAG}")
        assert visitor.get().text == "<p>closed</p>"
        up.sh(f"rm {FLAG}")
        step.undo()
        settled(up, "reverse-proxy", params, files)


@pytest.mark.parametrize("drift, subjects", [
    (f"sed -i s/15552000/1/ {SITE}", [f"update file {SITE}", RELOAD]),
    (f"rm {SITE}", [f"create file {SITE}", RELOAD]),
    ("rm /etc/nginx/conf.d/orchestrate.conf", ["create file /etc/nginx/conf.d/orchestrate.conf", RELOAD]),
    ("systemctl -q stop nginx", ["update service nginx.service"]),
    ("systemctl -q mask --now nginx", ["update service nginx.service"]),
    ("systemctl -q disable --now certbot.timer", ["update service certbot.timer"]),
    ("rm /etc/letsencrypt/renewal-hooks/deploy/orchestrate", ["create file /etc/letsencrypt/renewal-hooks/deploy/orchestrate"]),
    ("rm -r /etc/systemd/system/certbot.service.d; systemctl daemon-reload",
     ["create directory /etc/systemd/system/certbot.service.d", "create file /etc/systemd/system/certbot.service.d/orchestrate.conf"]),
    (f"ln -sfn /tmp {TLS}", [f"update link {TLS}", RELOAD]),
    (f"chown root: /var/lib/orchestrate-proxy/flags/{DOMAIN}", [f"update directory /var/lib/orchestrate-proxy/flags/{DOMAIN}"]),
    (f"rm -r /etc/letsencrypt/live/{DOMAIN} /etc/letsencrypt/archive/{DOMAIN} /etc/letsencrypt/renewal/{DOMAIN}.conf", [f"create certificate of {DOMAIN}"]),
    (f"rm /etc/letsencrypt/renewal/{DOMAIN}.conf", [f"create certificate of {DOMAIN}"]),
    # As a killed certbot leaves it: the description is there first, and empty; the links lead nowhere yet, or are missing.
    (f": >/etc/letsencrypt/renewal/{DOMAIN}.conf", [f"create certificate of {DOMAIN}"]),
    (f": >/etc/letsencrypt/renewal/{DOMAIN}.conf; rm /etc/letsencrypt/archive/{DOMAIN}/fullchain*", [f"create certificate of {DOMAIN}"]),
    (f": >/etc/letsencrypt/renewal/{DOMAIN}.conf; rm -r /etc/letsencrypt/live/{DOMAIN} /etc/letsencrypt/archive/{DOMAIN}", [f"create certificate of {DOMAIN}"]),
    (f"rm -r /etc/letsencrypt/live/{DOMAIN}", [f"create certificate of {DOMAIN}"]),
    (f"rm /etc/letsencrypt/archive/{DOMAIN}/privkey*", [f"create certificate of {DOMAIN}"]),
    (f"sed -i 's,^server = .*,server = https://elsewhere.test/dir,' /etc/letsencrypt/renewal/{DOMAIN}.conf", [f"update certificate of {DOMAIN}"]),
])
def test_drift_is_named_and_mended(up, params, files, visitor, drift, subjects):
    mended(up, "reverse-proxy", params, files, drift, subjects)
    assert visitor.get().status == 200
    assert "-0001" not in up.sh(f"ls {LETSENCRYPT}"), "no certificate under another name"
    up.sh("rm -rf /etc/letsencrypt/*/*.before-*")


def test_a_step_that_changes_nothing_leaves_nginx_alone_when_it_is_undone(up, params, files):
    workers = up.sh("pgrep -P $(cat /run/nginx.pid) | sort")
    step = up.apply("reverse-proxy", params, files)
    assert step.changes == []
    step.undo()
    assert up.sh("pgrep -P $(cat /run/nginx.pid) | sort") == workers


def test_an_etc_letsencrypt_that_is_closed_stays_closed(up, params, files):
    up.sh("chmod 700 /etc/letsencrypt; rm -r /etc/letsencrypt/renewal-hooks")
    up.apply("reverse-proxy", params, files)
    assert up.sh("stat -c %a /etc/letsencrypt") == "700"
    up.sh("chmod 755 /etc/letsencrypt")


def test_somebody_elses_default_server_stays_the_default(up, params, files, visitor):
    up.write("/etc/nginx/sites-enabled/mine", 'server {\n listen\t80\tdefault_server; return 200 "mine"; }\n')
    step = up.apply("reverse-proxy", params, files)
    assert step.subjects == ["update file /etc/nginx/conf.d/orchestrate.conf", RELOAD]
    assert visitor.plain("/", host="unknown.test").text == "mine" and visitor.plain("/").status == 301 and visitor.get().status == 200
    with pytest.raises(ssl.SSLError):
        Visitor(visitor.address, None, "unknown.test").connect()
    settled(up, "reverse-proxy", params, files)
    up.sh("rm /etc/nginx/sites-enabled/mine")
    step.undo()
    settled(up, "reverse-proxy", params, files)


def test_somebody_elses_fault_is_refused_before_anything(up, params, files, visitor):
    up.write("/etc/nginx/conf.d/broken.conf", "server { listen 8088; no_such_thing on; }\n")
    before = content(up, PLACES)
    for attempt in (up.plan, up.apply):
        step = attempt("reverse-proxy", {**params, "HSTS": 1}, files, check=False)
        assert step.status == 1 and "no_such_thing" in step.output and "Nothing was changed" in step.output and "/etc/nginx/conf.d/broken.conf:1" in step.output
        assert "BEGIN" not in step.output
    assert content(up, PLACES) == before and visitor.get().headers["Strict-Transport-Security"] == "max-age=15552000"
    up.sh("rm /etc/nginx/conf.d/broken.conf")
    settled(up, "reverse-proxy", params, files)


def test_somebody_elses_size_of_the_table_of_names_counts(up, params, files):
    up.write("/etc/nginx/conf.d/size.conf", "server_names_hash_bucket_size 256;\n")
    step = up.apply("reverse-proxy", params, files)
    assert step.subjects == ["update file /etc/nginx/conf.d/orchestrate.conf", RELOAD]
    settled(up, "reverse-proxy", params, files)
    up.sh("rm /etc/nginx/conf.d/size.conf")
    up.apply("reverse-proxy", params, files)
    assert "server_names_hash_bucket_size" in up.read("/etc/nginx/conf.d/orchestrate.conf")


def test_a_file_that_is_never_read_is_told(up, params, files):
    up.sh("cp /etc/nginx/nginx.conf /tmp/nginx.conf; sed -i '/conf.d/d' /etc/nginx/nginx.conf")
    step = up.apply("reverse-proxy", {**params, "HSTS": 1}, files, check=False)
    assert step.status == 1 and "does not include /etc/nginx/conf.d" in step.output
    up.sh("cat /tmp/nginx.conf >/etc/nginx/nginx.conf; systemctl reload nginx")
    settled(up, "reverse-proxy", params, files)


class TestCertificates:
    def test_another_name_makes_another_certificate_and_back(self, up, params, files, visitor):
        serial = visitor.serial()
        assert visitor.names() == {DOMAIN}
        step = up.apply("reverse-proxy", {**params, "ALIASES": ALIAS}, files)
        assert f"update certificate of {DOMAIN}" in step.subjects
        assert visitor.names() == {DOMAIN, ALIAS} and Visitor(visitor.address, visitor_root(up), ALIAS).get().status == 200
        settled(up, "reverse-proxy", {**params, "ALIASES": ALIAS}, files)
        step.undo()
        assert visitor.names() == {DOMAIN} and visitor.serial() == serial, "the old certificate is back"
        settled(up, "reverse-proxy", params, files)

    def test_the_timers_service_renews_and_the_proxy_takes_it_over(self, up, params, files, visitor):
        serial = visitor.serial()
        up.sh(f"sed -i '1i renew_before_expiry = 30 days' /etc/letsencrypt/renewal/{DOMAIN}.conf; systemctl start certbot.service", timeout=120)
        up.until(lambda: visitor.serial() != serial, "the new one is served", 10)
        settled(up, "reverse-proxy", params, files)

    def test_an_authority_that_is_dead_or_says_no_changes_nothing(self, up, params, files, visitor):
        serial, before = visitor.serial(), content(up, PLACES + " /etc/letsencrypt/live /etc/letsencrypt/renewal")
        for change, words in (({"ACME_SERVER": params["ACME_SERVER"].replace("14000", "14001")}, "stays the one that it is"), ({"ALIASES": "nowhere.test"}, "nowhere.test")):
            step = up.apply("reverse-proxy", {**params, **change}, files, check=False)
            assert step.status == 1 and "gave no certificate" in step.output and words in step.output
            step.undo()
            assert visitor.serial() == serial and visitor.get().status == 200
            assert content(up, PLACES + " /etc/letsencrypt/live /etc/letsencrypt/renewal") == before
        settled(up, "reverse-proxy", params, files)

    def test_without_the_authority_that_vouches_for_the_server(self, up, params, visitor):
        other = {**params, "DOMAIN": "other.test", "SITES": f"{DOMAIN} other.test"}
        step = up.apply("reverse-proxy", other, check=False)
        assert step.status == 1 and "other.test has no certificate yet" in step.output
        step.undo()
        assert not up.exists("/etc/nginx/conf.d/orchestrate-other.test.conf") and visitor.get().status == 200

    def test_a_site_that_the_playbook_no_longer_has_goes(self, up, params, files, visitor):
        both = f"{DOMAIN} other.test"
        up.apply("reverse-proxy", {**params, "DOMAIN": "other.test", "SITES": both}, files)
        settled(up, "reverse-proxy", {**params, "SITES": both}, files)
        assert Visitor(visitor.address, visitor_root(up), "other.test").get().status == 200
        assert sorted(line.split()[0] for line in certificates(up).splitlines()) == ["other.test", DOMAIN]
        step = up.apply("reverse-proxy", params, files)
        assert "delete file /etc/nginx/conf.d/orchestrate-other.test.conf" in step.subjects
        with pytest.raises(ssl.SSLError):
            Visitor(visitor.address, visitor_root(up), "other.test").connect()
        settled(up, "reverse-proxy", params, files)
        step.undo()
        assert Visitor(visitor.address, visitor_root(up), "other.test").get().status == 200
        up.apply("reverse-proxy", params, files)

    def test_what_a_killed_certbot_left_comes_back_when_the_next_one_fails(self, up, params, files, visitor):
        serial = visitor.serial()
        up.sh(f": >/etc/letsencrypt/renewal/{DOMAIN}.conf")
        before = content(up, LETSENCRYPT)
        step = up.apply("reverse-proxy", {**params, "ACME_SERVER": params["ACME_SERVER"].replace("14000", "14001")}, files, check=False)
        assert step.status == 1 and "gave no certificate" in step.output
        for _ in range(2):
            step.undo()
            assert content(up, LETSENCRYPT) == before and visitor.serial() == serial
        up.apply("reverse-proxy", params, files)
        assert visitor.serial() != serial
        settled(up, "reverse-proxy", params, files)
        up.sh("rm -rf /etc/letsencrypt/*/*.before-*")

    def test_a_first_certificate_that_fails_leaves_nothing_of_certbots(self, up, params, files):
        """What its next attempt would call DOMAIN-0001."""
        before = content(up, LETSENCRYPT)
        other = {**params, "DOMAIN": "other.test", "SITES": f"{DOMAIN} other.test"}
        up.write("/usr/local/sbin/certbot", "#!/bin/sh\nmkdir -p /etc/letsencrypt/live/other.test; : >/etc/letsencrypt/renewal/other.test.conf; exit 1\n", 0o755)
        step = up.apply("reverse-proxy", other, files, check=False)
        up.sh("rm /usr/local/sbin/certbot")
        assert step.status == 1
        step.undo()
        assert content(up, LETSENCRYPT) == before

    def test_an_authority_is_trusted_while_a_site_has_it(self, up, params, files, authority):
        """certbot's service is one for all certificates: without any such authority, nothing of ours is in its way."""
        assert up.exists(DROP_IN)
        up.sh(f"mv /etc/orchestrate/proxy/{DOMAIN}/acme-ca.pem /root/; systemctl start certbot.service; mv /root/acme-ca.pem /etc/orchestrate/proxy/{DOMAIN}/")
        given = {**params, "CERTIFICATE": "given", "ACME_SERVER": "", "EMAIL": ""}
        pem = authority.issue("alone")
        planned = plan(up, "reverse-proxy", given, pem)
        step = up.apply("reverse-proxy", given, pem)
        assert f"delete file {DROP_IN}" in step.subjects and step.changes == planned.changes
        # The certificate that no site has any more is certbot's all the same: it fails for that one alone, at its authority.
        up.sh("systemctl start certbot.service", check=False)
        said = up.sh("journalctl -u certbot.service -n 30 --no-pager")
        assert "Main process exited" in said and "Control process" not in said, said
        settled(up, "reverse-proxy", given, pem)
        step.undo()
        assert up.sh("systemctl show -p DropInPaths --value certbot.service") == DROP_IN
        # The site that has it leaves the playbook, and another stays.
        other, pem = {**given, "DOMAIN": "other.test", "SITES": f"{DOMAIN} other.test"}, authority.issue("stays", ["other.test"])
        assert f"delete file {DROP_IN}" not in up.apply("reverse-proxy", other, pem).subjects
        settled(up, "reverse-proxy", other, pem)
        alone = {**other, "SITES": "other.test"}
        planned = plan(up, "reverse-proxy", alone, pem)
        step = up.apply("reverse-proxy", alone, pem)
        assert f"delete file {DROP_IN}" in step.subjects and step.changes == planned.changes
        assert up.sh("systemctl show -p DropInPaths --value certbot.service") == ""
        step.undo()
        up.apply("reverse-proxy", params, files)
        settled(up, "reverse-proxy", params, files)

    def test_two_sites_on_a_host_that_was_restored_without_letsencrypt(self, up, params, files):
        first, other = ({**params, "DOMAIN": name, "SITES": f"{DOMAIN} other.test"} for name in (DOMAIN, "other.test"))
        up.apply("reverse-proxy", other, files)
        up.sh("systemctl stop nginx; mv /etc/letsencrypt /root/letsencrypt")
        before = content(up, PLACES)
        plan(up, "reverse-proxy", first, files)
        step = up.apply("reverse-proxy", first, files)
        assert f"create certificate of {DOMAIN}" in step.subjects
        assert Visitor(up.address, visitor_root(up), DOMAIN).get().status == 200
        assert sorted((line.split()[0], line.split()[4]) for line in certificates(up).splitlines()) == [("other.test", "temporary"), (DOMAIN, "own")]
        step.undo()
        assert content(up, PLACES) == before
        up.apply("reverse-proxy", first, files)
        again = up.apply("reverse-proxy", other, files)
        assert again.subjects == ["create certificate of other.test"]
        assert Visitor(up.address, visitor_root(up), "other.test").get().status == 200
        for site in (first, other):
            settled(up, "reverse-proxy", site, files)
        assert not up.exists("/etc/orchestrate/proxy/other.test/temporary")
        up.apply("reverse-proxy", params, files)
        up.sh("rm -r /root/letsencrypt")

    def test_what_status_is_told(self, up, params, files):
        domain, kind, begins, ends, shown = certificates(up).split()
        assert (domain, kind, shown) == (DOMAIN, "acme", "own") and 19 * 86400 < int(ends) - int(begins) <= 21 * 86400
        assert certificates(up, project="another") == ""
        up.sh("systemctl stop nginx")
        assert certificates(up) == f"{DOMAIN} acme - - -"
        up.sh("systemctl start nginx")
        up.sh("mkdir -p /root/other; cd /root/other; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 60 -subj /CN=other.test "
              f"-addext subjectAltName=DNS:other.test -keyout privkey.pem -out fullchain.pem 2>/dev/null; ln -sfn /root/other {TLS}; systemctl reload nginx")
        up.until(lambda: certificates(up).endswith(" other"), "the wrong certificate is told", 10)
        up.apply("reverse-proxy", params, files)
        up.sh("rm -r /root/other")


def visitor_root(host):
    return Path(assignments(sandbox("acme", "up").stdout)["ACME_ROOT"]).read_text()


def certificates(host, project="shop"):
    """queries/certificates.query.sh as the deploying user, who may read no certificate's file."""
    host.write("/tmp/query/lib.sh", (Path(__file__).resolve().parents[2] / "playbooks/host/lib.sh").read_bytes())
    host.write("/tmp/query/query.sh", (Path(__file__).resolve().parents[2] / "playbooks/queries/certificates.query.sh").read_bytes())
    return host.sh(f"cd / && su shipper -c 'ORCH_BUNDLE=/tmp/query ORCH_PROJECT={project} sh /tmp/query/query.sh'")


class Authority:
    """Makes certificates to be given."""

    def __init__(self, folder):
        self.folder = folder
        self.make("root", "/CN=own CA", [], "-x509", "-days", "30")

    def make(self, name, subject, extensions, *how):
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject, "-keyout", f"{name}.key",
                     "-out", f"{name}.pem", *[word for extension in extensions for word in ("-addext", extension)], *how)

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def issue(self, name, names=(DOMAIN,), days="30"):
        self.make(name, "/CN=site", [])
        (self.folder / "ext").write_text("subjectAltName=" + ",".join(f"DNS:{each}" for each in names))
        self.openssl("x509", "-req", "-in", f"{name}.pem", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", days, "-extfile", "ext", "-out", f"{name}.crt")
        return {"certificate.pem": (self.folder / f"{name}.crt").read_text() + self.root, "key.pem": (self.folder / f"{name}.key").read_text()}

    @property
    def root(self):
        return (self.folder / "root.pem").read_text()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


class TestGiven:
    @pytest.fixture
    def given(self, params):
        return {**params, "CERTIFICATE": "given", "ACME_SERVER": "", "EMAIL": ""}

    def test_cycle(self, up, given, params, files, authority, visitor):
        pem = authority.issue("good")
        step = up.apply("reverse-proxy", given, pem)
        assert f"update link {TLS}" in step.subjects
        assert "PRIVATE" not in step.output and pem["key.pem"].splitlines()[1] not in str(step.facts)
        assert Visitor(visitor.address, authority.root).get().status == 200
        assert up.sh(f"stat -c '%U %a' /etc/orchestrate/proxy/{DOMAIN}/given/privkey.pem") == "root 600"
        assert certificates(up).split()[1] == "given"
        settled(up, "reverse-proxy", given, pem)
        back = up.apply("reverse-proxy", params, files)
        key = f"/etc/orchestrate/proxy/{DOMAIN}/given/privkey.pem"
        assert f"delete file {key}" in back.subjects and not up.exists(key), "nobody needs it any more"
        assert pem["key.pem"].splitlines()[1] not in back.output + str(back.facts)
        back.undo()
        assert up.read(key) == pem["key.pem"] and Visitor(visitor.address, authority.root).get().status == 200
        settled(up, "reverse-proxy", given, pem)
        renewed = up.apply("reverse-proxy", given, authority.issue("next"))
        assert [subject.split("/")[-1] for subject in renewed.subjects] == ["fullchain.pem", "privkey.pem", RELOAD]
        renewed.undo()
        settled(up, "reverse-proxy", given, pem)
        step.undo()
        assert visitor.get().status == 200
        settled(up, "reverse-proxy", params, files)

    def test_what_does_not_fit_is_refused_before_anything(self, up, given, authority, visitor):
        good, other = authority.issue("good"), authority.issue("other", ["other.test"])
        authority.openssl("ec", "-in", "good.key", "-aes128", "-passout", "pass:secret", "-out", "locked.key")
        before = content(up, PLACES)
        for pem, words in (
            ({**good, "key.pem": other["key.pem"]}, "does not belong to"),
            (other, "is not for shop.test: DNS:other.test"),
            ({**good, "certificate.pem": authority.root + good["certificate.pem"]}, "does not belong to"),
            ({**good, "certificate.pem": "nothing"}, "not in PEM form"),
            # Everybody may read that file, and a plan shows its lines.
            ({**good, "certificate.pem": good["certificate.pem"] + good["key.pem"]}, "A private key lies in the file"),
            ({**good, "certificate.pem": good["key.pem"] + good["certificate.pem"]}, "A private key lies in the file"),
            ({**good, "key.pem": (authority.folder / "locked.key").read_text()}, "without a passphrase"),
            (authority.issue("old", days="0"), "has expired"),
        ):
            for attempt in (up.plan, up.apply):
                step = attempt("reverse-proxy", given, pem, check=False)
                assert step.status == 1 and words in step.output and "Nothing was changed" in step.output
                assert pem["key.pem"].splitlines()[1] not in step.output + str(step.facts)
        assert content(up, PLACES) == before and visitor.get().status == 200

    def test_a_long_name(self, up, given, params, files, authority):
        name = f"{'x' * 63}.{'y' * 40}.shop.test"
        step = up.apply("reverse-proxy", {**given, "DOMAIN": name, "SITES": f"{DOMAIN} {name}"}, authority.issue("long", [name]))
        assert Visitor(up.address, authority.root, name).get().status == 200
        step.undo()
        settled(up, "reverse-proxy", params, files)

    def test_killed_at_a_program_and_undone(self, up, given, params, files, authority, visitor):
        """SIGKILL for the whole group at the nth program that changes something; the undo is killed too, elsewhere, and run again."""
        programs = ("mv", "sync", "chown", "mkdir", "rm", "ln", "cp", "dd", "systemctl", "nginx", "openssl")
        before, serial, pem = content(up, PLACES), visitor.serial(), authority.issue("killed")
        for name in programs:
            up.write(f"/usr/local/sbin/{name}", f"""#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
if [ -e /run/at ]; then
  read -r n </run/counter; n=$((n + 1)); echo $n >/run/counter
  if [ $n = "$(cat /run/at)" ]; then kill -KILL -$(ps -o pgid= -p $$ | tr -d ' '); fi
fi
exec {name} "$@"
""", 0o755)
        at, places = 0, 0
        try:
            while True:
                at += 7
                places += 1
                up.sh(f"echo 0 >/run/counter; echo {at} >/run/at")
                step = up.apply("reverse-proxy", given, pem, check=False, prelude="setsid -w")
                killed = int(up.read("/run/counter")) >= at
                up.sh(f"echo 0 >/run/counter; echo {at % 23 + 5} >/run/at")
                up.script(step.directory, "undo", check=False, prelude="setsid -w")
                up.sh("/usr/bin/rm -f /run/at")
                step.undo()
                assert content(up, PLACES) == before, f"killed at {at}"
                up.until(lambda: visitor.serial() == serial, f"the old certificate, killed at {at}", 10)
                if not killed:
                    assert step.status == 0, step.output
                    break
        finally:
            up.sh("/usr/bin/rm -f /run/at " + " ".join(f"/usr/local/sbin/{name}" for name in programs))
        print(f"killed at {places - 1} places")
        settled(up, "reverse-proxy", params, files)


@pytest.mark.parametrize("change", [{"DOMAIN": "shop.test; }"}, {"DOMAIN": "$host"}, {"ALIASES": "a..b"}, {"UPSTREAM": "x y"}, {"UPSTREAM": "unix:/tmp/{x}"}, {"RATE": "1;"},
                                    {"CERTIFICATE": "none"}, {"PROJECT": ""}])
def test_refuses_what_would_be_something_else_in_nginxs_file(host, params, files, change):
    assert host.plan("reverse-proxy", {**params, **change}, files, check=False).status == 1


def test_under_busybox_and_after_a_reboot(up, params, files, acme):
    up.reboot()
    sandbox("acme", "name", DOMAIN, up.name)
    visitor = Visitor(up.address, acme["root"])
    shell, up.shell = up.shell, SHELLS[1]
    try:
        up.until(lambda: up.run("systemctl is-active nginx application", check=False).status == 0, "the services are up")
        assert visitor.get().status == 200
        settled(up, "reverse-proxy", params, files)
        step = up.apply("reverse-proxy", {**params, "HSTS": 60}, files)
        assert visitor.get().headers["Strict-Transport-Security"] == "max-age=60"
        step.undo()
        settled(up, "reverse-proxy", params, files)
    finally:
        up.shell = shell
