"""pypsrp brings in a machine that does not fit here, mends what the validation finds, and realizes it.

Arguments: the Windows path of the package, that of its disk, which has moved since, and the name of a switch.
"""

import sys
import xml.etree.ElementTree as ET

from hyperv import Hyperv, embedded

host = Hyperv()
package, disk, switch = sys.argv[1:]
service = host.only("Msvm_VirtualSystemManagementService")
output = host.call(
    service, "ImportSystemDefinition", SystemDefinitionFile=package, GenerateNewSystemIdentifier=True
)
planned = output["ImportedSystem"]


def findings():
    """What stands in the way, by Hyper-V's ids where there are some."""
    job = host.call(service, "ValidatePlannedSystem", PlannedSystem=planned)["Job"]
    while host.fetch(job)["JobState"] not in ("7", "8", "9", "10", "32768"):
        pass
    (affected,) = host.related(job, "Msvm_PlannedComputerSystem", "Msvm_AffectedJobElement")
    assert affected.selectors["Name"] == planned.selectors["Name"]
    said = host.call(job, "GetErrorEx")["Errors"]
    found = []
    for text in said if isinstance(said, list) else [said] if said else []:
        values = {p.get("NAME"): p.findtext("VALUE") for p in ET.fromstring(text).iter("PROPERTY")}
        if values["PerceivedSeverity"] == "6":
            found.append(values["MessageID"])
    assert (host.fetch(job)["JobState"] == "10") == bool(found), found
    return found


def parts(class_name, of_type=""):
    (settings,) = host.related(planned, "Msvm_VirtualSystemSettingData", "Msvm_SettingsDefineState")
    found = host.related(settings, class_name, "Msvm_VirtualSystemSettingDataComponent")
    return [one for one in found if of_type in (host.fetch(one)["ResourceSubType"] or "")]


def modify(reference, **changed):
    properties = {name: value for name, value in host.fetch(reference).items() if value is not None}
    text = embedded(reference.class_name, {**properties, **changed})
    host.wait(host.call(service, "ModifyResourceSettings", ResourceSettings=[text]))


assert sorted(findings()) == ["33012", "disk-missing"], findings()
(storage,) = parts("Msvm_StorageAllocationSettingData", "Virtual Hard Disk")
modify(storage, HostResource=[disk])
assert findings() == ["33012"], findings()
(connection,) = parts("Msvm_EthernetPortAllocationSettingData")
target = host.only("Msvm_VirtualEthernetSwitch", f'WHERE ElementName="{switch}"')
modify(connection, HostResource=[target.path()])
assert findings() == [], findings()
(processors,) = parts("Msvm_ProcessorSettingData")
modify(processors, VirtualQuantity=2)
(settings,) = host.related(planned, "Msvm_VirtualSystemSettingData", "Msvm_SettingsDefineState")
text = embedded(
    settings.class_name,
    {"InstanceID": settings.selectors["InstanceID"], "ElementName": "mended", "Notes": ["brought in"]},
)
host.wait(host.call(service, "ModifySystemSettings", SystemSettings=text))
job = host.wait(host.call(service, "RealizePlannedSystem", PlannedSystem=planned))
(made,) = host.related(job, "Msvm_ComputerSystem", "Msvm_AffectedJobElement")
assert host.fetch(made)["ElementName"] == "mended"
host.wait(host.call(made, "RequestStateChange", RequestedState=2))
host.wait(host.call(made, "RequestStateChange", RequestedState=3))
