"""From Python: export, the layers that cost most, several price lists, two boards.

python examples/from_python.py [FOLDER] [FRAMES]
"""

import sys
from pathlib import Path

from spiketrack_deploy import api
from spiketrack_deploy.errors import SpiketrackError


def microjoules(interval: dict[str, float]) -> str:
    """Nanojoules of a result as a text."""
    low, nominal, high = (interval[key] / 1000 for key in ("low", "nominal", "high"))
    return f"{nominal:.0f} uJ [{low:.0f}, {high:.0f}]"


def main(folder: str = "export/from-python", frames: int = 20) -> None:
    """The bundled model on the bundled clip; nothing here needs a chip."""
    bundle = api.export(api.ExportRequest(out=folder, max_frames=frames, force=True))
    print("\n".join(bundle["verdict"]))

    run = api.simulate(folder, max_frames=frames)
    search = [layer for layer in run["layers"] if layer["phase"] == "search"]
    for layer in sorted(search, key=lambda layer: -layer["counts"].get("synops", 0))[:5]:
        print(f"{layer['name']:45} {layer['counts']['synops']:12,.0f} synaptic operations a frame")

    mine = Path(__file__).with_name("my_chip.toml")
    for report in api.energy(folder, ["loihi2", "cmos45_int8", str(mine)])["profiles"]:
        missing = dict.fromkeys(item["name"] for item in report["unpriced"] if item["count"])
        print(f"{report['profile']['name']:12} {microjoules(report['per_result']['total_nj'])}", end="")
        print(f"   without a price: {', '.join(missing) or 'nothing'}")

    for target in ("oheo_gulch", "kapoho_point"):
        fit = api.map(folder, target=target)
        print(f"{target:12} {fit['sentence']}", *fit["camera"])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2], *(int(text) for text in sys.argv[2:3]))
    except SpiketrackError as error:
        sys.exit(f"error: {error}")
