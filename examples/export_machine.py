#!/usr/bin/env python3
"""Exports a machine: usage: export_machine.py MACHINE DIRECTORY [SETTING=VALUE...]

The directory is the host's (C:\\Exports). Settings are those of Msvm_VirtualSystemExportSettingData, such as
CopyVmStorage=false or CreateVmExportSubdirectory=true.
"""

import sys

from hyperv import Hyperv, embedded


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    name, directory, *words = sys.argv[1:]
    host = Hyperv()
    machine = host.machine(name)
    service = host.only("Msvm_VirtualSystemManagementService")

    # The machine's own export settings are the defaults; what is named on the command line changes them.
    (settings,) = host.related(machine, "Msvm_VirtualSystemExportSettingData", "Msvm_SystemExportSettingData")
    values = {k: v for k, v in host.fetch(settings).items() if v is not None and k != "SnapshotVirtualSystem"}
    values.update(word.split("=", 1) for word in words)
    values.setdefault("CopySnapshotConfiguration", "1")

    output = host.call(
        service,
        "ExportSystemDefinition",
        ComputerSystem=machine,
        ExportDirectory=directory,
        ExportSettingData=embedded("Msvm_VirtualSystemExportSettingData", values),
    )
    host.wait(output, lambda percent: print(f"\rexporting {name}: {percent}%", end="", flush=True))
    print(f"\nexported {name} to {directory}")


if __name__ == "__main__":
    main()
