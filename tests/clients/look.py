"""pypsrp looks around: list, get, query, associations. Arguments: the machine's name and id."""

import sys

from hyperv import Hyperv, Reference, URI, NAMESPACE
from pypsrp.exceptions import WSManFaultError

name, guid = sys.argv[1], sys.argv[2].upper()
host = Hyperv()

# Listing and getting agree.
systems = host.query("SELECT * FROM Msvm_ComputerSystem")
assert [s["ElementName"] for s in systems].count(name) == 1, systems
(machine,) = [s for s in systems if s["ElementName"] == name]
assert machine["Name"] == guid and machine["Caption"] == "Virtual Machine", machine
assert host.get("Msvm_ComputerSystem", CreationClassName="Msvm_ComputerSystem", Name=guid) == machine
# Partial keys and other cases are Windows' habit.
assert host.get("msvm_computersystem", Name=guid.lower())["Name"] == guid

# A query with a projection and a condition that nothing else meets.
(found,) = host.query(f"SELECT Name FROM Msvm_ComputerSystem WHERE ElementName LIKE '{name[:2]}%' AND Name != __SERVER")
assert found["Name"] == guid and "ElementName" not in found, found
assert host.query("SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'nobody'") == []

# From the machine over its settings to its hardware.
path = Reference(f"{URI}{NAMESPACE}/Msvm_ComputerSystem", {"CreationClassName": "Msvm_ComputerSystem", "Name": guid})
(settings,) = host.related(path, "Msvm_VirtualSystemSettingData", "Msvm_SettingsDefineState")
values = host.fetch(settings)
assert values["VirtualSystemIdentifier"] == guid and values["VirtualSystemType"] == "Microsoft:Hyper-V:System:Realized", values
memory = host.related(settings, "Msvm_MemorySettingData", "Msvm_VirtualSystemSettingDataComponent")
assert len(memory) == 1 and int(host.fetch(memory[0])["VirtualQuantity"]) >= 32, memory
assert host.related(settings, "Msvm_ProcessorSettingData", "Msvm_VirtualSystemSettingDataComponent")
disks = host.related(settings, "Msvm_StorageAllocationSettingData", "Msvm_VirtualSystemSettingDataComponent")
assert disks and host.fetch(disks[0])["HostResource"], disks

# The summary that consoles show.
service = host.only("Msvm_VirtualSystemManagementService")
output = host.call(service, "GetSummaryInformation", SettingData=settings, RequestedInformation=[0, 1, 4, 100, 103])
assert output["ReturnValue"] == "0" and output["SummaryInformation"] is not None, output

# The host as its own clients see it.
(system,) = host.query("SELECT * FROM Win32_OperatingSystem", namespace="root/cimv2")
assert system["Version"], system

for wrong, expected in [
    (lambda: host.get("Msvm_ComputerSystem", Name="00000000-0000-0000-0000-000000000000"), "there is no"),
    (lambda: host.get("Msvm_NoSuchClass", Name="x"), "Msvm_NoSuchClass"),
    (lambda: host.query("SELECT FROM WHERE"), "not understood"),
    (lambda: host.call(path, "NoSuchMethod"), "NoSuchMethod"),
]:
    try:
        wrong()
    except WSManFaultError as fault:
        assert fault.code and expected.lower() in str(fault).lower(), fault
    else:
        raise AssertionError(f"no fault that says {expected}")
