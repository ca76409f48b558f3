"""Reads what `septwatch export` wrote with other tools' readers, and prints one JSON object of what is in it."""

import collections
import json
import sys


def parquet(path):
    import pyarrow.compute
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    types = table.column("type").value_counts().to_pylist()
    total = lambda name: pyarrow.compute.sum(table.column(name)).as_py()
    return {
        "rows": table.num_rows,
        "types": {one["values"]: one["counts"] for one in types},
        "tid": total("tid"),
        "pfn": total("pfn"),
        "schema": {field.name: str(field.type) for field in table.schema},
    }


def perfetto(path):
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as messages

    trace = messages.Trace()
    with open(path, "rb") as file:
        trace.ParseFromString(file.read())
    tracks, last, names, arguments = {}, {}, {}, {}
    depth, counts = collections.Counter(), collections.Counter()
    faults, clocks, statuses = [], [], 0
    begin, end = 1, 2
    for packet in trace.packet:
        names.update({one.iid: one.name for one in packet.interned_data.event_names})
        arguments.update({one.iid: one.name for one in packet.interned_data.debug_annotation_names})
        if packet.HasField("clock_snapshot"):
            clocks.append(sorted(clock.clock_id for clock in packet.clock_snapshot.clocks))
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            tracks[track.uuid] = "process" if track.HasField("process") else track.name
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        track = event.track_uuid
        if track not in tracks:
            faults.append(f"no track {track}")
        if packet.timestamp < last.get(track, 0):
            faults.append(f"{tracks.get(track)}: time goes back")
        last[track] = packet.timestamp
        depth[track] += (event.type == begin) - (event.type == end)
        if depth[track] < 0:
            faults.append(f"{tracks.get(track)}: an end without a begin")
        if event.type not in (end, 4) and event.name_iid not in names:
            faults.append(f"an event without a name: {event}")
        said = [arguments.get(one.name_iid) for one in event.debug_annotations]
        statuses += "status" in said
        name = tracks.get(track, "")
        kind = {1: "slices", 2: "ends", 3: "instants", 4: "values"}[event.type]
        counts[("CPU" if name.startswith("CPU ") else name) + " " + kind] += 1
    faults += [f"{tracks[track]}: {count} slices without an end" for track, count in depth.items() if count]
    processes = sum(name == "process" for name in tracks.values())
    return {"counts": counts, "faults": faults[:10], "clocks": clocks, "processes": processes, "statuses": statuses}


print(json.dumps({"parquet": parquet, "perfetto": perfetto}[sys.argv[1]](sys.argv[2])))
