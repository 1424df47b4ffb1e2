"""The lake without Flexmeter: every Delta table of a tenant, opened by deltalake and by polars."""

import argparse
import json
import pathlib
import sys

import deltalake
import polars


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lake", type=pathlib.Path, help="a tenant's folder: <data_dir>/lake/<tenant>")
    arguments = parser.parse_args()

    tables = sorted(path for path in arguments.lake.iterdir() if (path / "_delta_log").is_dir())
    if not tables:
        sys.exit(f"no Delta table below {arguments.lake}")
    counts = {}
    for path in tables:
        table = deltalake.DeltaTable(str(path))
        counts[path.name] = {
            "deltalake": table.to_pyarrow_dataset().count_rows(),
            "polars": polars.scan_delta(str(path)).select(polars.len()).collect().item(),
            "version": table.version(),
            "partition_columns": table.metadata().partition_columns,
        }
    print(json.dumps({"client": "lake", "tables": counts}))


if __name__ == "__main__":
    main()
