#!/usr/bin/env python3
"""Imports a machine as Hyper-V did in 2008: usage: v1_import.py DIRECTORY [--new-id | SETTING=VALUE...]

The directory is the host's, and the machine's own: C:\\Exports\\web. Without settings its files are used where they are,
which can be done once, or more often with new ids (ImportVirtualSystem). With settings, which are those of
Msvm_VirtualSystemImportSettingData, the host is asked for what it would do, that is changed, and handed back
(ImportVirtualSystemEx). Lists are separated by semicolons: TargetResourcePaths=C:\\Disks\\a.vhd;C:\\Disks\\b.vhd.
"""

import sys

from hyperv import Hyperv, Refused, embedded

NAMESPACE = "root/virtualization"
SETTINGS = "Msvm_VirtualSystemImportSettingData"
LISTS = (
    "CurrentResourcePaths",
    "SourceResourcePaths",
    "TargetResourcePaths",
    "SourceNetworkConnections",
    "TargetNetworkConnections",
)


def ask(host, service, directory):
    """What an import of that directory would do."""
    output = host.call(service, "GetVirtualSystemImportSettingData", ImportDirectory=directory)
    host.wait(output)
    values = {name: value for name, value in output["ImportSettingData"].items() if value is not None}
    # A list of one looks like its element.
    return {name: [v] if name in LISTS and not isinstance(v, list) else v for name, v in values.items()}


def main():
    directory, *words = sys.argv[1:] or sys.exit(__doc__)
    host = Hyperv(namespace=NAMESPACE)
    service = host.only("Msvm_VirtualSystemManagementService")
    chosen = dict(word.split("=", 1) for word in words if not word.startswith("--"))
    try:
        if chosen:
            values = ask(host, service, directory)
            for old, here in zip(values.get("SourceNetworkConnections", []), values.get("TargetNetworkConnections", [])):
                print(f"switch {old}: {here or 'not here'}")
            for path in values.get("CurrentResourcePaths", []):
                print(f"disk {path}")
            values |= {name: v.split(";") if name in LISTS else v for name, v in chosen.items()}
            output = host.call(
                service,
                "ImportVirtualSystemEx",
                ImportDirectory=directory,
                ImportSettingData=embedded(SETTINGS, values),
            )
        else:
            output = host.call(
                service, "ImportVirtualSystem", ImportDirectory=directory, GenerateNewID="--new-id" in words
            )
        # No reference to the machine comes back: the job tells which one it is about.
        job = host.wait(output)
    except (Refused, RuntimeError) as error:
        print(f"not imported: {error}", file=sys.stderr)
        sys.exit(1)
    (machine,) = host.related(job, "Msvm_ComputerSystem", "Msvm_AffectedJobElement")
    print(f"imported {host.fetch(machine)['ElementName']} ({machine.selectors['Name']})")


if __name__ == "__main__":
    main()
