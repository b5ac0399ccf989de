"""The units that start a release at boot: made, enabled, mended where somebody took them away, and undone."""

import pytest

pytestmark = pytest.mark.sandbox

PARAMS = {"USER": "deploy", "PROJECT": "shop"}
UNITS = ("orchestrate-recover@shop.service", "orchestrate@shop.service")
ETC = "/etc/systemd/system"


def links(droplet):
    return droplet.sh(f"find {ETC} -name 'orchestrate*' | sort").split()


def test_made_and_then_as_it_should_be(droplet):
    assert links(droplet) == []
    planned = droplet.plan("systemd-unit", PARAMS)
    assert planned.subjects == [
        f"create file {ETC}/orchestrate-recover@.service", "update service orchestrate-recover@shop.service",
        f"create file {ETC}/orchestrate@.service", "update service orchestrate@shop.service"]
    assert links(droplet) == []
    step = droplet.apply("systemd-unit", PARAMS)
    assert step.changes == planned.changes
    assert links(droplet) == sorted([
        f"{ETC}/docker.service.wants/orchestrate@shop.service", f"{ETC}/multi-user.target.wants/orchestrate@shop.service",
        f"{ETC}/multi-user.target.wants/orchestrate-recover@shop.service", f"{ETC}/orchestrate@.service", f"{ETC}/orchestrate-recover@.service"])
    shown = droplet.sh(f"systemctl show {UNITS[1]} -p User,LoadState,UnitFileState,After").splitlines()
    assert {"User=deploy", "LoadState=loaded", "UnitFileState=enabled"} <= set(shown)
    assert UNITS[0] in next(line for line in shown if line.startswith("After="))
    # Nothing is deployed.
    assert droplet.sh(f"systemctl start {UNITS[1]}; systemctl show -p ConditionResult --value {UNITS[1]}") == "no"
    assert droplet.plan("systemd-unit", PARAMS).changes == []
    again = droplet.apply("systemd-unit", PARAMS)
    assert again.changes == []
    again.undo()
    assert len(links(droplet)) == 5


@pytest.mark.parametrize("drift, detail", [
    (f"systemctl mask {UNITS[1]}", [f"- masked {ETC}/{UNITS[1]}"]),
    (f"systemctl disable {UNITS[1]}", ["+ wanted by multi-user.target", "+ wanted by docker.service"]),
    (f"rm {ETC}/docker.service.wants/{UNITS[1]}", ["+ wanted by docker.service"]),
    (f"systemctl mask --runtime {UNITS[1]}", [f"- masked /run/systemd/system/{UNITS[1]}"]),
])
def test_each_drift_is_named_mended_and_comes_back(droplet, drift, detail):
    droplet.apply("systemd-unit", PARAMS)
    well = links(droplet)
    droplet.sh(drift)
    ill = links(droplet)
    assert droplet.plan("systemd-unit", PARAMS).changes == [{"action": "update", "subject": f"service {UNITS[1]}", "detail": detail}]
    step = droplet.apply("systemd-unit", PARAMS)
    assert links(droplet) == well
    assert droplet.plan("systemd-unit", PARAMS).changes == []
    step.undo()
    step.undo()
    assert links(droplet) == ill
    droplet.apply("systemd-unit", PARAMS)


def test_an_edited_template_and_its_undo(droplet):
    droplet.apply("systemd-unit", PARAMS)
    droplet.sh(f"sed -i s/User=deploy/User=root/ {ETC}/orchestrate@.service")
    step = droplet.apply("systemd-unit", PARAMS)
    assert step.changes[0]["detail"][1:] and "+ User=deploy" in step.changes[0]["detail"]
    assert droplet.sh(f"systemctl show -p User --value {UNITS[1]}") == "deploy"
    step.undo()
    assert droplet.sh(f"systemctl show -p User --value {UNITS[1]}") == "root"


def test_undone_from_nothing(droplet):
    droplet.sh(f"systemctl disable {' '.join(UNITS)}; rm -f {ETC}/orchestrate*@.service; systemctl daemon-reload")
    assert links(droplet) == []
    droplet.apply("systemd-unit", PARAMS).undo()
    assert links(droplet) == []
    assert droplet.sh(f"systemctl show -p LoadState --value {UNITS[1]}") == "not-found"


def test_names_that_are_none_are_refused(droplet):
    for params in ({"USER": "a b", "PROJECT": "shop"}, {"USER": "deploy", "PROJECT": "../x"}, {"USER": "", "PROJECT": "shop"}):
        assert droplet.plan("systemd-unit", params, check=False).status == 1
