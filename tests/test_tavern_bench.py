"""The short form of `bench tavern`: a real realm in battle, a small crowd; what is counted holds on any machine."""

from training.bench.tavern import QUICK, promises, run_tavern, tavern_text


def test_a_crowd_before_the_tavern_hears_everything_once_and_leaves_nothing_behind():
    said = []
    result = run_tavern(QUICK, said.append)
    assert result["requests"] >= QUICK.pollers and set(result["paths"]) >= {"/api/status", "/"}
    assert result["events"] >= QUICK.listeners - QUICK.stalled and (result["torn"], result["lost"]) == (0, 0)
    assert result["files_after"] <= result["files_before"]
    assert result["home"]["bytes"] < 100_000 and result["battle_steps"] >= 0 and result["cores"] > 0
    assert {held for name, _, held in promises(result) if "within 10 s" in name or "once" in name} == {True}
    assert "all" in tavern_text(result) and len(said) == 2
