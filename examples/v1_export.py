#!/usr/bin/env python3
"""Exports a machine as Hyper-V did in 2008: usage: v1_export.py MACHINE DIRECTORY [--configuration | SETTING=VALUE...]

The directory is the host's (C:\\Exports). Without settings the export goes to a folder of the machine's name in it
(ExportVirtualSystem), with everything or with the configuration alone. With settings, which are those of v1's
Msvm_VirtualSystemExportSettingData, it goes where they say (ExportVirtualSystemEx).
"""

import sys

from hyperv import Hyperv, embedded

NAMESPACE = "root/virtualization"


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    name, directory, *words = sys.argv[1:]
    host = Hyperv(namespace=NAMESPACE)
    machine = host.machine(name)
    service = host.only("Msvm_VirtualSystemManagementService")

    settings = dict(word.split("=", 1) for word in words if not word.startswith("--"))
    if settings:
        (defaults,) = host.related(machine, "Msvm_VirtualSystemExportSettingData", "Msvm_SystemExportSettingData")
        values = {k: v for k, v in host.fetch(defaults).items() if v is not None} | settings
        output = host.call(
            service,
            "ExportVirtualSystemEx",
            ComputerSystem=machine,
            ExportDirectory=directory,
            ExportSettingData=embedded("Msvm_VirtualSystemExportSettingData", values),
        )
    else:
        output = host.call(
            service,
            "ExportVirtualSystem",
            ComputerSystem=machine,
            CopyVmState="--configuration" not in words,
            ExportDirectory=directory,
        )
    host.wait(output, lambda percent: print(f"\rexporting {name}: {percent}%", end="", flush=True))
    print(f"\nexported {name} to {directory}")


if __name__ == "__main__":
    main()
