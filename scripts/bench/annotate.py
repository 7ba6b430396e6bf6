"""`annotate --preset quick` on a real clip: seconds from the command to the results. Give the clip as the argument."""

import subprocess
import sys
import time
from pathlib import Path

from rig import CONSOLE_COMMAND, percentile, say, workplace


def main() -> None:
    clip = Path(sys.argv[1])
    seconds = []
    with workplace() as folder:
        for number in range(5):
            command = [
                CONSOLE_COMMAND,
                "annotate",
                str(clip),
                "--preset",
                "quick",
                "--no-cache",
                "--output",
                str(folder / str(number)),
            ]
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - began)
    say(
        f"annotate --preset quick on {clip.name}, p50",
        percentile(seconds, 0.5),
        "s",
        asked=6.0,
        worst=round(max(seconds), 2),
    )


if __name__ == "__main__":
    main()
