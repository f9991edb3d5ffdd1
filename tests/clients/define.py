"""pypsrp defines a machine, gives it a disk and a network adapter, changes and destroys it.

Argument: the Windows path of an image for the disk.
"""

import sys

from hyperv import Hyperv, embedded

host = Hyperv()
(disk,) = sys.argv[1:]
service = host.only("Msvm_VirtualSystemManagementService")

output = host.call(
    service,
    "DefineSystem",
    SystemSettings=embedded(
        "Msvm_VirtualSystemSettingData",
        {"ElementName": "made", "VirtualSystemSubType": "Microsoft:Hyper-V:SubType:2", "Notes": ["by a client"]},
    ),
)
host.wait(output)
machine = host.machine("made")
(settings,) = host.related(machine, "Msvm_VirtualSystemSettingData", "Msvm_SettingsDefineState")
assert host.fetch(settings)["VirtualSystemSubType"] == "Microsoft:Hyper-V:SubType:2"

(memory,) = host.related(settings, "Msvm_MemorySettingData", "Msvm_VirtualSystemSettingDataComponent")
values = {k: v for k, v in host.fetch(memory).items() if v is not None}
host.wait(
    host.call(
        service,
        "ModifyResourceSettings",
        ResourceSettings=[embedded("Msvm_MemorySettingData", {**values, "VirtualQuantity": "768"})],
    )
)
assert host.fetch(memory)["VirtualQuantity"] == "768"

# A controller, a drive in it, the disk in the drive.


def add(*resources):
    output = host.call(service, "AddResourceSettings", AffectedConfiguration=settings, ResourceSettings=list(resources))
    host.wait(output)
    return output["ResultingResourceSettings"]


controllers = host.related(settings, "Msvm_ResourceAllocationSettingData", "Msvm_VirtualSystemSettingDataComponent")
controllers = [c for c in controllers if host.fetch(c)["ResourceSubType"] == "Microsoft:Hyper-V:Synthetic SCSI Controller"]
if not controllers:
    controllers = [
        add(embedded("Msvm_ResourceAllocationSettingData", {"ResourceType": 6, "ResourceSubType": "Microsoft:Hyper-V:Synthetic SCSI Controller"}))
    ]
controller = controllers[0]
drive = add(
    embedded(
        "Msvm_ResourceAllocationSettingData",
        {
            "ResourceType": 17,
            "ResourceSubType": "Microsoft:Hyper-V:Synthetic Disk Drive",
            "Parent": controller.path(),
            "AddressOnParent": "0",
        },
    )
)
attached = add(
    embedded(
        "Msvm_StorageAllocationSettingData",
        {
            "ResourceType": 31,
            "ResourceSubType": "Microsoft:Hyper-V:Virtual Hard Disk",
            "Parent": drive.path(),
            "HostResource": [disk],
        },
    )
)
shown = host.fetch(attached)["HostResource"]
assert shown == disk, shown

host.wait(
    host.call(
        service,
        "ModifySystemSettings",
        SystemSettings=embedded(
            "Msvm_VirtualSystemSettingData",
            {"InstanceID": host.fetch(settings)["InstanceID"], "ElementName": "made anew"},
        ),
    )
)
machine = host.machine("made anew")
host.wait(host.call(service, "RemoveResourceSettings", ResourceSettings=[attached]))
host.wait(host.call(service, "DestroySystem", AffectedSystem=machine))
assert host.find('SELECT * FROM Msvm_ComputerSystem WHERE ElementName="made anew"') == []
