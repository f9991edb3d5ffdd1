"""pypsrp gives virtual disks to a machine, and takes them back.

Arguments: `attach` or `detach`, the machine's name, and Windows paths of virtual disks. A disk that is not there is made, and
the machine is; it runs when `attach` ends, and is gone when `detach` does.
"""

import sys
import xml.etree.ElementTree as ET

from hyperv import Hyperv, Refused, embedded

host = Hyperv()
phase, name, *disks = sys.argv[1:]
service = host.only("Msvm_VirtualSystemManagementService")
images = host.only("Msvm_ImageManagementService")
CHANGE, DESTROY, IN_USE, NOT_FOUND = 31, 3, 32774, 32779


def read(text):
    """The properties of an instance in CIM-XML."""
    properties = ET.fromstring(text).iter("PROPERTY")
    return {p.get("NAME"): value.text for p in properties for value in p.iter("VALUE")}


def state(path):
    return read(host.call(images, "GetVirtualHardDiskState", Path=path)["State"])


def settings_of(path):
    return read(host.call(images, "GetVirtualHardDiskSettingData", Path=path)["SettingData"])


def refused(code, call):
    try:
        call()
    except Refused as no:
        assert no.code == code, no
        return
    raise AssertionError("it was not refused")


def rasd(kind, sub_type, **more):
    return embedded("Msvm_ResourceAllocationSettingData", {"ResourceType": kind, "ResourceSubType": f"Microsoft:Hyper-V:{sub_type}", **more})


def attach():
    system = {"ElementName": name, "VirtualSystemSubType": "Microsoft:Hyper-V:SubType:2", "SecureBootEnabled": False}
    host.wait(host.call(service, "DefineSystem", SystemSettings=embedded("Msvm_VirtualSystemSettingData", system)))
    machine = host.machine(name)
    (settings,) = host.related(machine, "Msvm_VirtualSystemSettingData", "Msvm_SettingsDefineState")

    def add(resource):
        output = host.call(service, "AddResourceSettings", AffectedConfiguration=settings, ResourceSettings=[resource])
        job = host.wait(output)
        if job:
            assert host.fetch(job)["JobType"] == str(CHANGE), host.fetch(job)
        return output["ResultingResourceSettings"]

    controller = add(rasd(6, "Synthetic SCSI Controller"))
    for slot, path in enumerate(disks):
        try:
            settings_of(path)
        except Refused as no:
            assert no.code == NOT_FOUND, no
            wanted = {"Path": path, "Type": 3, "Format": 3, "MaxInternalSize": str(160 << 20)}
            host.wait(host.call(images, "CreateVirtualHardDisk", VirtualDiskSettingData=embedded("Msvm_VirtualHardDiskSettingData", wanted)))
        drive = add(rasd(17, "Synthetic Disk Drive", Parent=controller.path(), AddressOnParent=str(slot)))
        disk = {"ResourceType": 31, "ResourceSubType": "Microsoft:Hyper-V:Virtual Hard Disk", "Parent": drive.path(), "HostResource": [path]}
        attached = host.fetch(add(embedded("Msvm_StorageAllocationSettingData", disk)))
        assert attached["HostResource"] == path, attached
        # What a client was given and sends back is no change.
        same = embedded("Msvm_StorageAllocationSettingData", {**disk, "InstanceID": attached["InstanceID"]})
        assert host.wait(host.call(service, "ModifyResourceSettings", ResourceSettings=[same])) is None
        assert state(path)["InUse"].upper() == "TRUE"
        refused(IN_USE, lambda path=path: host.call(images, "ResizeVirtualHardDisk", Path=path, MaxInternalSize=1 << 30))
    host.wait(host.call(machine, "RequestStateChange", RequestedState=2))
    assert settings_of(disks[0])["Path"] == disks[0]


def detach():
    machine = host.machine(name)
    host.wait(host.call(machine, "RequestStateChange", RequestedState=3))
    (settings,) = host.related(machine, "Msvm_VirtualSystemSettingData", "Msvm_SettingsDefineState")
    found = host.related(settings, "Msvm_StorageAllocationSettingData", "Msvm_VirtualSystemSettingDataComponent")
    assert len(found) == len(disks), found
    first = [disk for disk in found if host.fetch(disk)["HostResource"] == disks[0]]
    refused(IN_USE, lambda: host.call(images, "ValidateVirtualHardDisk", Path=disks[0]))
    output = host.call(service, "RemoveResourceSettings", expected=[4096], ResourceSettings=first)
    job = host.fetch(host.wait(output))
    assert job["JobType"] == str(CHANGE) and job["PercentComplete"] == "100", job
    assert state(disks[0])["InUse"].upper() == "FALSE"
    job = host.wait(host.call(service, "DestroySystem", AffectedSystem=machine))
    if len(disks) > 1:
        assert host.fetch(job)["JobType"] == str(DESTROY), job
    assert host.find(f'SELECT * FROM Msvm_ComputerSystem WHERE ElementName="{name}"') == []
    for path in disks:
        job = host.wait(host.call(images, "ValidateVirtualHardDisk", Path=path))
        assert state(path)["InUse"].upper() == "FALSE"


{"attach": attach, "detach": detach}[phase]()
