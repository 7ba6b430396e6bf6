"""What `.ci/clip` holds must be in the results: two scenes cut at 4 s, nobody's face, voice in both halves."""

import csv
import json
import sys
from hashlib import sha256
from pathlib import Path

results = Path(sys.argv[1])
manifest = json.loads((results / "manifest.json").read_text())
scenes = json.loads((results / "scene_detection.json").read_text())["scenes"]
faces = json.loads((results / "face_analysis.json").read_text())
with (results / "voice_activity.csv").open(newline="") as table:
    turns = [float(row["onset"]) for row in csv.DictReader(table)]

assert [0.0, 4.0] == [round(scene["start_time"], 1) for scene in scenes], scenes
assert faces["images"], "no frame was looked at"
assert any(0.5 < onset < 2 for onset in turns), turns
assert any(4.5 < onset < 6 for onset in turns), turns
(listed,) = manifest["outputs"].values()
for entry in listed:
    content = (results / entry["path"]).read_bytes()
    assert entry["size"] == len(content), entry
    assert entry["sha256"] == sha256(content).hexdigest(), entry
print(f"{len(listed)} files verified: {len(scenes)} scenes, {len(turns)} turns of voice")
