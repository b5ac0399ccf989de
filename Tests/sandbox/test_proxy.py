"""From a rented machine to https: bootstrap with reverse-proxy, deploy, renewal, maintenance, a reboot. The tests build on each other.

The certificates come from pebble, a real ACME server, by the real certbot; visitors are curl on this machine.
"""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from conftest import ROOT, assignments, make_project, sandbox

pytestmark = pytest.mark.machine

DROPLET = "t-proxy"
DOMAIN = "notes.test"


class Site:
    def __init__(self, project, acme):
        self.project, self.acme, self.root = project, acme, acme["ACME_ROOT"]

    @property
    def address(self):
        return self.project.host("ip -4 -o addr show dev eth0").split()[3].split("/")[0]

    def curl(self, url, *options):
        resolve = [word for port in (80, 443) for word in ("--resolve", f"{DOMAIN}:{port}:{self.address}")]
        return subprocess.run(["curl", "-sS", "-m", "10", "-i", *resolve, "--cacert", self.root, *options, url], capture_output=True, text=True)

    def get(self, path="/health", *options):
        """Status, headers in lower case, and text."""
        done = self.curl(f"https://{DOMAIN}{path}", *options)
        assert done.returncode == 0, done.stderr
        head, _, text = done.stdout.replace("\r", "").partition("\n\n")
        lines = head.splitlines()
        return int(lines[0].split()[1]), {key.lower(): value for key, value in (line.split(": ", 1) for line in lines[1:])}, text

    def serial(self):
        shown = subprocess.run(["openssl", "s_client", "-connect", f"{self.address}:443", "-servername", DOMAIN], input="", capture_output=True, text=True).stdout
        return subprocess.run(["openssl", "x509", "-noout", "-serial"], input=shown, capture_output=True, text=True, check=True).stdout.strip()

    def until(self, condition, what, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s: {what}"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    sandbox("rm", DROPLET, check=False)
    sandbox("droplet", DROPLET, "--fresh")
    acme = assignments(sandbox("acme", "up").stdout)
    sandbox("acme", "name", DOMAIN, DROPLET)
    project = make_project(tmp_path_factory.mktemp("project"), DROPLET, "http-service")
    (project.folder / "files").mkdir()
    shutil.copy(acme["ACME_CA"], project.folder / "files/acme-ca.pem")
    site = Site(project, acme)
    playbook(site, certificate="")
    yield site
    sandbox("rm", DROPLET, check=False)


def playbook(site, certificate="", server=None):
    """The built-in playbook, with a proxy; its limit is one that a slow machine reaches too."""
    text = (ROOT / "playbooks/builtin/bootstrap.yml").read_text().replace('vm.overcommit_memory: "1", ', "")
    acme = f"acme_server: {server or site.acme['ACME_DIRECTORY']}, acme_ca: files/acme-ca.pem, email: ops@{DOMAIN}"
    text += f'  - reverse-proxy: {{ domain: {DOMAIN}, upstream: 127.0.0.1:8080, rate_limit: 5, {certificate or acme} }}\n  - fail2ban: {{ ignore: ["10.83.0.0/24"] }}\n'
    (site.project.folder / "playbooks/bootstrap.yml").write_text(text)


def bootstrap(site, *arguments, **more):
    return site.project.run("bootstrap", "prod", *arguments, timeout=600, **more)


def test_from_a_bare_machine_to_https(site):
    result = bootstrap(site, "--yes", "--json").expect(0)
    summary = json.loads(result.out.splitlines()[-1])["summary"]
    print(f"bootstrap {result.seconds:.1f} s:", ", ".join(f"{step['step']} {step['seconds']:.1f}" for step in summary["steps"]))
    status, headers, text = site.get()
    assert status == 503 and "Back soon" in text and headers["retry-after"] == "30", "nothing is deployed yet"
    site.project.deploy("v1.0.0", "--yes").expect(0)
    status, headers, text = site.get()
    assert status == 200 and headers["x-version"] == "v1.0.0" and headers["strict-transport-security"] == "max-age=15552000"
    plain = site.curl(f"http://{DOMAIN}/notes?x=1")
    assert " 301 " in plain.stdout and f"Location: https://{DOMAIN}/notes?x=1" in plain.stdout.replace("\r", "")


def test_a_second_time_changes_nothing(site):
    result = bootstrap(site, "--yes", "--json").expect(0)
    summary = json.loads(result.out.splitlines()[-1])["summary"]
    assert summary.get("number") is None and summary["round_trips"] <= 5
    print(f"second bootstrap {result.seconds:.2f} s, {summary['round_trips']} round trips")
    bootstrap(site, "--plan").expect(0)


def test_too_many_requests_get_429(site):
    urls = [word for _ in range(60) for word in ("-o", "/dev/null", f"https://{DOMAIN}/health")]
    done = subprocess.run(["curl", "-s", "--cacert", site.root, "--resolve", f"{DOMAIN}:443:{site.address}", "-w", "%{http_code}\n", "--parallel", "--parallel-max", "20", *urls],
                          capture_output=True, text=True, timeout=60)
    codes = done.stdout.split()
    assert codes.count("200") >= 10 and codes.count("429") > 0 and set(codes) == {"200", "429"}, {code: codes.count(code) for code in codes}


def test_status_and_doctor_show_when_the_certificate_ends(site):
    [certificate] = site.project.status()["certificates"]
    assert certificate["domain"] == DOMAIN and certificate["kind"] == "acme" and certificate["expires"] > certificate["begins"]
    assert f"certificate {DOMAIN}: until {certificate['expires']}" in site.project.run("status", "prod").expect(0).out
    checks = json.loads(site.project.run("doctor", "prod", "--json").out)["checks"]
    [check] = [check for check in checks if check["name"] == "certificate"]
    assert check["state"] == "passed" and "ends in 19 days" in check["message"]
    timed = json.loads(site.project.run("status", "prod", "--json", "--timings").expect(0).out)["timings"]
    assert timed["round_trips"] <= 3


def test_the_timer_renews_and_nginx_takes_it_over(site):
    before = site.serial()
    assert site.project.host("systemctl is-active certbot.timer") == "active"
    site.project.host(f"sudo -n sed -i '1i renew_before_expiry = 30 days' /etc/letsencrypt/renewal/{DOMAIN}.conf; sudo -n systemctl start certbot.service")
    site.until(lambda: site.serial() != before, "the new certificate is shown", 15)
    assert site.get()[0] == 200
    bootstrap(site, "--plan").expect(0)


def test_a_maintenance_page_while_the_service_is_down(site):
    site.project.host(f"docker stop {site.project.container('web')}")
    status, headers, text = site.get("/notes")
    assert status == 503 and "Back soon" in text and headers["retry-after"] == "30"
    site.project.host("docker start $(docker ps -aqf label=com.docker.compose.service=web)")
    site.until(lambda: site.get()[0] == 200, "it answers again")
    flag = f"/var/lib/orchestrate-proxy/flags/{DOMAIN}/maintenance"
    site.project.host(f"touch {flag}")
    assert site.get()[0] == 503
    site.project.host(f"rm {flag}")
    assert site.get()[0] == 200


def test_a_dead_authority_leaves_the_old_certificate(site):
    before = site.serial()
    playbook(site, server=site.acme["ACME_DIRECTORY"].replace("14000", "14001"))
    result = bootstrap(site, "--yes", "--output", "plain").expect(3)
    assert "gave no certificate" in result.text and "stays the one that it is" in result.text
    assert site.serial() == before and site.get()[0] == 200
    playbook(site)
    bootstrap(site, "--plan").expect(0)


def test_a_proxy_that_does_not_answer_is_told(site):
    site.project.host("sudo -n systemctl stop nginx")
    status = site.project.status()
    assert status["state"] == "degraded" and f"doesn't answer for {DOMAIN}" in status["reason"]
    assert site.project.run("doctor", "prod").status == 1
    assert "service nginx.service" in bootstrap(site, "--yes", "--output", "plain").expect(0).text
    assert site.get()[0] == 200


def test_after_a_reboot_https_answers(site):
    sandbox("reboot", DROPLET)
    sandbox("acme", "name", DOMAIN, DROPLET)
    site.until(lambda: site.curl(f"https://{DOMAIN}/health").returncode == 0 and site.get()[0] == 200, "https after a boot", 90)
    bootstrap(site, "--plan").expect(0)


def test_a_given_certificate(site, tmp_path):
    folder = site.project.folder / "files"

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-days", "15", "-subj", "/CN=own", "-addext", f"subjectAltName=DNS:{DOMAIN}", "-keyout", "site.key", "-out", "site.pem")
    shutil.copy(tmp_path / "site.pem", folder / "site.pem")
    playbook(site, certificate="certificate: { file: files/site.pem, key: TLS_KEY }")
    assert "TLS_KEY" in bootstrap(site, "--plan").expect(78).text
    private = (tmp_path / "site.key").read_text()
    result = bootstrap(site, "--yes", "--output", "plain", "-v", TLS_KEY=private).expect(0)
    lines = [line for line in private.splitlines() if "PRIVATE" not in line]
    assert not any(line in result.text for line in lines)
    # By a file: sudo writes its command line into the journal.
    found = site.project.host(f"echo {lines[0]} >/dev/shm/wanted; sudo -n grep -rlFf /dev/shm/wanted /etc /var/lib/orchestrate-host /var/log /tmp 2>/dev/null; rm /dev/shm/wanted")
    assert found.split() == [f"/etc/orchestrate/proxy/{DOMAIN}/given/privkey.pem"]
    site.root = str(Path(folder / "site.pem"))
    assert site.get()[0] == 200
    checks = json.loads(site.project.run("doctor", "prod", "--json").out)["checks"]
    [check] = [check for check in checks if check["name"] == "certificate"]
    assert check["state"] == "passed" and "ends in 14 days" in check["message"]
    bootstrap(site, "--plan", TLS_KEY=private).expect(0)
