#!/usr/bin/env python3
"""Imports a machine: usage: import_machine.py DIRECTORY-OR-CONFIGURATION [--new-id] [--start]

The path is the host's (C:\\Exports\\web, or the .vmcx file in it).
"""

import sys
import xml.etree.ElementTree as ET

from hyperv import Hyperv, Refused


def findings(errors):
    """Errors come as embedded instances of Msvm_Error."""
    for text in errors if isinstance(errors, list) else [errors] if errors else []:
        values = {p.get("NAME"): p.findtext("VALUE") for p in ET.fromstring(text).iter("PROPERTY")}
        yield values.get("MessageID"), values.get("Message")


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if len(words) != 1:
        sys.exit(__doc__)
    host = Hyperv()
    service = host.only("Msvm_VirtualSystemManagementService")

    output = host.call(
        service,
        "ImportSystemDefinition",
        SystemDefinitionFile=words[0],
        SnapshotFolder=None,
        GenerateNewSystemIdentifier="--new-id" in sys.argv,
    )
    job = host.wait(output)
    planned = output["ImportedSystem"] or host.related(job, "Msvm_PlannedComputerSystem", "Msvm_AffectedJobElement")[0]
    print(f"planned {host.fetch(planned)['ElementName']}")

    try:
        checked = host.call(service, "ValidatePlannedSystem", PlannedSystem=planned)
        job = host.wait(checked)
        if job is not None:
            for number, message in findings(host.call(job, "GetErrorEx")["Errors"]):
                print(f"finding {number}: {message}")
        realized = host.call(service, "RealizePlannedSystem", PlannedSystem=planned)
        job = host.wait(realized)
    except (Refused, RuntimeError) as error:
        print(f"cannot become a machine: {error}", file=sys.stderr)
        host.wait(host.call(service, "DestroySystem", AffectedSystem=planned))
        sys.exit(1)
    machine = realized["ResultingSystem"] or host.related(job, "Msvm_ComputerSystem", "Msvm_AffectedJobElement")[0]
    print(f"realized {host.fetch(machine)['ElementName']} ({machine.selectors['Name']})")
    if "--start" in sys.argv:
        host.wait(host.call(machine, "RequestStateChange", RequestedState=2))
        print("started")


if __name__ == "__main__":
    main()
