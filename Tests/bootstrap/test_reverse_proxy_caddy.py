"""reverse-proxy with `server: caddy` on a fresh droplet: what differs from nginx. The certificates come from pebble, by Caddy itself."""

import ssl

import pytest
from conftest import SHELLS, sandbox
from system_cycle import content, mended, plan, settled
from test_reverse_proxy import ALIAS, DOMAIN, FLAG, Authority, Visitor, acme, certificates, files, host, params, visitor

assert acme and files and host and params and visitor  # fixtures: pytest finds them by their names here

pytestmark = pytest.mark.sandbox
KIND = "reverse-proxy-caddy"
SITE = f"/etc/caddy/orchestrate/{DOMAIN}.caddy"
PLACES = "/etc/caddy /etc/orchestrate /etc/systemd /var/lib/orchestrate-proxy"
RELOAD = "run reload of caddy"


@pytest.fixture
def up(host, params, files):
    host.apply(KIND, params, files)
    return host


def test_planned_on_made_again_undone(host, params, files, visitor):
    planned = plan(host, KIND, params, files)
    assert planned.subjects[0] == "create package caddy"
    step = host.apply(KIND, params, files)
    assert step.changes == planned.changes
    assert visitor.get().status == 200 and certificates(host).startswith(f"{DOMAIN} acme 1")
    settled(host, KIND, params, files)
    serial = visitor.serial()
    for _ in range(2):
        step.undo()
    assert not host.exists(SITE) and host.sh("systemctl is-active caddy; systemctl is-enabled caddy", check=False).split() == ["inactive", "disabled"]
    assert "file_server" in host.read("/etc/caddy/Caddyfile")
    host.apply(KIND, params, files)
    assert visitor.serial() == serial, "what was fetched is used again"
    settled(host, KIND, params, files)


def test_what_visitors_and_the_application_get(up, visitor):
    plain = visitor.plain("/a?b=c")
    assert plain.status == 308 and plain.headers["Location"] == f"https://{DOMAIN}/a?b=c"
    answer = visitor.get("/", headers={"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"})
    told = dict(line.split(": ", 1) for line in answer.text.splitlines())
    assert told["X-Forwarded-For"] == told["X-Real-Ip"] == "10.83.0.1" and told["X-Forwarded-Proto"] == "https" and told["Host"] == DOMAIN and "Forwarded" not in told
    assert answer.headers["Strict-Transport-Security"] == "max-age=15552000" and answer.headers["X-Content-Type-Options"] == "nosniff" and not answer.headers["Server"]
    own = visitor.get("/own").headers
    assert own.get_all("Referrer-Policy") == ["no-referrer"] and own.get_all("Strict-Transport-Security") == ["max-age=15552000"]
    with pytest.raises(ssl.SSLError):
        Visitor(visitor.address, None, "unknown.test").connect()


def test_maintenance(up, visitor):
    up.sh("systemctl stop application")
    for method in ("GET", "POST"):
        down = visitor.get("/some/where", method=method)
        assert down.status == 503 and "Back soon" in down.text and down.headers["Retry-After"] == "30" and down.headers["Strict-Transport-Security"]
    up.sh("systemctl start application")
    up.until(lambda: visitor.get().status == 200, "it answers again", 10)
    assert "Back soon" not in visitor.get("/busy").text
    up.sh(f"su shipper -c 'touch {FLAG}'")
    assert visitor.get().status == 503 and "Back soon" in visitor.get().text
    up.sh(f"su shipper -c 'rm {FLAG}'")
    assert visitor.get().status == 200


@pytest.mark.parametrize("drift, subjects", [
    (f"sed -i s/15552000/1/ {SITE}", [f"update file {SITE}", RELOAD]),
    (f"rm {SITE}", [f"create file {SITE}", RELOAD]),
    ("echo '# mine' >/etc/caddy/Caddyfile", ["update file /etc/caddy/Caddyfile", RELOAD]),
    ("systemctl -q stop caddy", ["update service caddy.service"]),
    ("systemctl -q mask --now caddy", ["update service caddy.service"]),
])
def test_drift_is_named_and_mended(up, params, files, visitor, drift, subjects):
    mended(up, KIND, params, files, drift, subjects)
    assert visitor.get().status == 200


def test_somebody_elses_fault_is_refused_before_anything(up, params, files, visitor):
    up.write("/etc/caddy/orchestrate/broken.caddy", "x.test {\n no_such_thing on\n}\n")
    before = content(up, PLACES)
    for attempt in (up.plan, up.apply):
        step = attempt(KIND, {**params, "HSTS": 1}, files, check=False)
        assert step.status == 1 and "no_such_thing" in step.output and "Nothing was changed" in step.output
    assert content(up, PLACES) == before and visitor.get().status == 200
    up.sh("rm /etc/caddy/orchestrate/broken.caddy")
    settled(up, KIND, params, files)


def test_another_name(up, params, files, acme, visitor):
    step = up.apply(KIND, {**params, "ALIASES": ALIAS}, files)
    assert Visitor(visitor.address, acme["root"], ALIAS).get().status == 200 and visitor.get().status == 200
    settled(up, KIND, {**params, "ALIASES": ALIAS}, files)
    step.undo()
    settled(up, KIND, params, files)


def test_an_authority_that_is_dead_leaves_the_old_certificate(up, params, files, visitor):
    serial, before = visitor.serial(), content(up, PLACES)
    step = up.apply(KIND, {**params, "ACME_SERVER": params["ACME_SERVER"].replace("14000", "14001")}, files, check=False)
    assert step.status == 1 and "has no certificate after 120 s" in step.output
    step.undo()
    assert content(up, PLACES) == before
    up.until(lambda: visitor.serial() == serial, "the old certificate", 10)
    settled(up, KIND, params, files)


def test_a_given_certificate(up, params, files, visitor, tmp_path):
    authority = Authority(tmp_path)
    given, pem = {**params, "CERTIFICATE": "given", "ACME_SERVER": "", "EMAIL": ""}, authority.issue("good")
    step = up.apply(KIND, given, pem)
    assert Visitor(visitor.address, authority.root).get().status == 200
    assert up.sh(f"stat -c '%U:%G %a' /etc/orchestrate/proxy/{DOMAIN}/given/privkey.pem") == "root:caddy 640"
    settled(up, KIND, given, pem)
    refused = up.apply(KIND, given, {**pem, "key.pem": authority.issue("other")["key.pem"]}, check=False)
    assert refused.status == 1 and "does not belong to" in refused.output and "Nothing was changed" in refused.output
    refused = up.plan(KIND, given, {**pem, "certificate.pem": pem["certificate.pem"] + pem["key.pem"]}, check=False)
    assert refused.status == 1 and "A private key lies in the file" in refused.output and pem["key.pem"].splitlines()[1] not in refused.output
    step.undo()
    up.until(lambda: visitor.get().status == 200, "the old certificate", 10)
    settled(up, KIND, params, files)


def test_under_busybox_and_after_a_reboot(up, params, files, acme):
    up.reboot()
    sandbox("acme", "name", DOMAIN, up.name)
    visitor = Visitor(up.address, acme["root"])
    shell, up.shell = up.shell, SHELLS[1]
    try:
        up.until(lambda: up.run("systemctl is-active caddy application", check=False).status == 0, "the services are up")
        up.until(lambda: visitor.get().status == 200, "https", 20)
        settled(up, KIND, params, files)
        step = up.apply(KIND, {**params, "HSTS": 60}, files)
        assert visitor.get().headers["Strict-Transport-Security"] == "max-age=60"
        step.undo()
        settled(up, KIND, params, files)
    finally:
        up.shell = shell


def test_a_rate_limit_is_refused(host, params, files):
    assert "no rate limit" in host.plan(KIND, {**params, "RATE": 5}, files, check=False).output
