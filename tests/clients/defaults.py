"""pypsrp makes a machine of defaults only, as Microsoft's samples do: pool, capabilities, default, place, add.

Arguments: the Windows paths of an image for the disk and of one for the DVD drive.
"""

import sys

from hyperv import Hyperv, Reference, embedded

host = Hyperv()
disk, image = sys.argv[1:]
service = host.only("Msvm_VirtualSystemManagementService")


def quoted(reference):
    """A path inside a string of a query."""
    return reference.path().replace("\\", "\\\\").replace('"', '\\"')


def default(sub_type):
    """From the primordial pool over its capabilities to the settings that are the default, as most tools walk."""
    where = f"WHERE ResourceSubType='Microsoft:Hyper-V:{sub_type}' AND Primordial=True"
    (pool,) = host.find(f"SELECT * FROM CIM_ResourcePool {where}")
    (capabilities,) = host.related(pool, "Msvm_AllocationCapabilities", "Msvm_ElementCapabilities")
    links = host.query(f"REFERENCES OF {{{capabilities.path()}}} WHERE ResultClass=Msvm_SettingsDefineCapabilities")
    assert len(links) == 4, links
    (link,) = [link for link in links if link["ValueRole"] == "0" and link["ValueRange"] == "0"]
    # The same, as scripts for PowerShell ask.
    (asked,) = host.query(
        f'SELECT * FROM Msvm_SettingsDefineCapabilities WHERE ValueRange=0 AND GroupComponent="{quoted(capabilities)}"'
    )
    assert asked["PartComponent"].selectors == link["PartComponent"].selectors, asked
    return host.fetch(link["PartComponent"])


def settings_of(values, **changed):
    # Intervals are spelled otherwise on the wire than in texts; the one there is stays as the host has it.
    kept = {name: value for name, value in values.items() if value is not None and name != "AutomaticStartupActionDelay"}
    return embedded(values.class_name, {**kept, **changed})


assert host.find("SELECT * FROM Msvm_ResourcePool WHERE ResourceSubType='Microsoft:Hyper-V:Virtual Floppy Disk'") == []
(most,) = host.query("SELECT * FROM Msvm_ProcessorSettingData WHERE InstanceID LIKE 'Microsoft:Definition%Maximum'")
assert int(most["VirtualQuantity"]) > 1, most

(capable,) = host.find("SELECT * FROM Msvm_VirtualSystemManagementCapabilities")
systems = map(host.fetch, host.related(capable, "Msvm_VirtualSystemSettingData", "Msvm_SettingsDefineCapabilities"))
(system,) = [one for one in systems if one["VirtualSystemSubType"] == "Microsoft:Hyper-V:SubType:2"]
output = host.call(
    service,
    "DefineSystem",
    SystemSettings=settings_of(system, ElementName="of defaults"),
    ResourceSettings=[settings_of(default("Memory"), VirtualQuantity="512"), settings_of(default("Processor"))],
)
host.wait(output)
machine = host.machine("of defaults")
(settings,) = host.related(machine, "Msvm_VirtualSystemSettingData", "Msvm_SettingsDefineState")


def add(sub_type, **placed):
    output = host.call(
        service,
        "AddResourceSettings",
        AffectedConfiguration=settings,
        ResourceSettings=[settings_of(default(sub_type), **placed)],
    )
    host.wait(output)
    return output["ResultingResourceSettings"]


controller = add("Synthetic SCSI Controller")
for slot, (drive, medium, file) in enumerate(
    [("Synthetic Disk Drive", "Virtual Hard Disk", disk), ("Synthetic DVD Drive", "Virtual CD/DVD Disk", image)]
):
    place = add(drive, Parent=controller.path(), AddressOnParent=str(slot))
    inside = add(medium, Parent=place.path(), HostResource=[file])
    assert host.fetch(inside)["HostResource"] == file, host.fetch(inside)
adapter = add("Synthetic Ethernet Port")
switch = host.find("SELECT * FROM Msvm_VirtualEthernetSwitch")[0]
connection = add("Ethernet Connection", Parent=adapter.path(), HostResource=[switch.path()])
plugged = host.fetch(connection)["HostResource"]
assert isinstance(plugged, str) and switch.selectors["Name"] in plugged, plugged

# What the machine has came from pools.
(pool,) = host.related(controller, "Msvm_ResourcePool", "Msvm_ResourceAllocationFromPool")
assert host.fetch(pool)["ResourceSubType"] == "Microsoft:Hyper-V:Synthetic SCSI Controller"
assert isinstance(pool, Reference)
