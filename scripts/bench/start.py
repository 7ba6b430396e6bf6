"""How soon the server answers, what it holds while idle, how soon the command line says what it can do."""

import subprocess
import time

from rig import CONSOLE_COMMAND, Server, percentile, say, workplace

MODEL_LIBRARIES = ("torch", "numpy", "cv2", "onnxruntime", "libav", "mediapipe", "ctranslate2")


def main() -> None:
    with workplace() as folder:
        seconds = []
        for number in range(7):
            server = Server(folder / f"storage-{number}")
            seconds.append(server.start_seconds)
            if number < 6:
                server.stop()
        say("process start to first healthy answer, p50", percentile(seconds, 0.5), "s", asked=1.0)
        say("process start to first healthy answer, worst of 7", max(seconds), "s", asked=1.0)
        time.sleep(2)
        family = server.family()
        resident = sum(process.memory_info().rss for process in family) / 2**20
        say("idle resident memory, server and guardian", resident, "MiB", asked=120, processes=len(family))
        mapped = {m.path for m in family[0].memory_maps()}
        loaded = [library for library in MODEL_LIBRARIES if any(f"/{library}" in path for path in mapped)]
        say("model libraries in the server process", len(loaded), "libraries", asked=0, loaded=loaded)
        server.stop()
    helps = [_help() for _ in range(7)]
    say("videoannotator --help, p50", percentile(helps, 0.5), "s", asked=0.3)


def _help() -> float:
    began = time.perf_counter()
    subprocess.run([CONSOLE_COMMAND, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
