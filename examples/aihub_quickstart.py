"""From an AI Hub token to a row on the plot: one model compiled and measured on a real phone-class device.

    pip install 'lpcvc-zoo[aihub]'
    qai-hub configure --api_token TOKEN
    python examples/aihub_quickstart.py

Stop it whenever you like and run it again: jobs that were submitted are found again, never sent twice.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from lpcvc_zoo import ZooError, get_contract, get_entry
from lpcvc_zoo.bench.outcome import INTERRUPTED
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.bench.sweep import SweepOptions, run
from lpcvc_zoo.targets.aihub import find_devices, open_service


def tell(row: ResultRow, budget_ms: float | None) -> None:
    if row.error is not None:
        raise ZooError(row.error)
    for tower, profile in (("image", row.image), ("text", row.text)):
        assert profile is not None
        assert profile.latency is not None
        where = ", ".join(f"{count} on {unit}" for unit, count in (profile.layers_by_unit or {}).items())
        print(f"   {tower}: {profile.latency.median_ms:.2f} ms, layers {where}; {profile.job_url}")
    print(f"   together {row.total_ms:.2f} ms" + (f", of {budget_ms:g} allowed" if budget_ms else ""))
    if row.scores is None:
        print("   untrained: its latency is real, its recall would be chance, so it was not measured")
    else:
        recall = row.scores.recall(10)
        print(f"   recall@10 on the device: {recall.value:.3f} ({recall.low:.3f} to {recall.high:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description="One model on one device of Qualcomm AI Hub.")
    parser.add_argument("--model", default="efficientvit_b0_text_s", help="see lpcvc-zoo list")
    parser.add_argument("--contract", default="lpcvc2026")
    parser.add_argument("--device", help="default: the challenge's own")
    parser.add_argument("--dataset", default="photos", help="to score a trained model on")
    parser.add_argument("--out", type=Path, default=Path("aihub_results"), help="folder of ledger and report")
    given = parser.parse_args()
    try:
        get_entry(given.model)  # one model: a pattern, or a wrong name, ends here
        contract = get_contract(given.contract)
        print("1. Ask AI Hub for its devices")
        service = open_service()
        device = find_devices(given.device or contract.device, service.devices())[0]
        print(f"   {service.host}: {device.name}, system {device.os}")

        print(f"2. Export {given.model}, compile and measure both towers there (minutes, most of it waiting)")
        options = SweepOptions(
            models=(given.model,),
            targets=("aihub",),
            devices=(device.name,),
            contracts=(contract.name,),
            dataset=given.dataset,
            out=given.out,
        )
        outcome = run(options)
        if outcome.interrupted:
            sys.exit(INTERRUPTED)  # it has said how to go on
        (row,) = outcome.rows

        print(f"3. What came back for {row.entry} ({row.weights})")
        tell(row, contract.latency_budget_ms)
    except ZooError as error:
        sys.exit(f"Error: {error}")
    print(f"4. It is on the plot: {given.out / 'report.html'}")
    where = f" --device {shlex.quote(row.device)}" if given.device else ""
    print(f"Next: lpcvc-zoo submit {row.entry} --results {given.out}{where} (looks, and shares nothing)")


if __name__ == "__main__":
    main()
