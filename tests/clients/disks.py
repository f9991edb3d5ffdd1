"""pypsrp makes virtual disks, looks at them and changes them.

Argument: the Windows path of a folder for them.
"""

import sys
import xml.etree.ElementTree as ET

from hyperv import Hyperv, Refused, embedded

host = Hyperv()
(folder,) = sys.argv[1:]
images = host.only("Msvm_ImageManagementService")
FIXED, DYNAMIC, VHD, VHDX = 2, 3, 2, 3
MIB = 1 << 20


def job(method, kind, **parameters):
    ended = host.fetch(host.wait(host.call(images, method, **parameters)))
    assert ended["JobType"] == str(kind) and ended["PercentComplete"] == "100", ended
    return ended


def read(text):
    """The properties of an instance in CIM-XML."""
    properties = ET.fromstring(text).iter("PROPERTY")
    return {p.get("NAME"): value.text for p in properties for value in p.iter("VALUE")}


def settings(path):
    return read(host.call(images, "GetVirtualHardDiskSettingData", Path=path)["SettingData"])


def state(path):
    return read(host.call(images, "GetVirtualHardDiskState", Path=path)["State"])


def create(name, **properties):
    path = folder + "\\" + name
    wanted = {"Path": path, "Type": DYNAMIC, "Format": VHDX, "MaxInternalSize": str(64 * MIB), **properties}
    job("CreateVirtualHardDisk", 1, VirtualDiskSettingData=embedded("Msvm_VirtualHardDiskSettingData", wanted))
    return path


def refused(code, method, **parameters):
    try:
        host.wait(host.call(images, method, **parameters))
    except Refused as no:
        assert no.code == code, no
        return
    raise AssertionError(f"{method} was not refused")


dynamic = create("dynamic.vhdx")
fixed = create("fixed.vhdx", Type=FIXED, MaxInternalSize=str(16 * MIB))
sectors = create("4k.vhdx", LogicalSectorSize=4096, BlockSize=MIB)
huge = create("huge.vhdx", MaxInternalSize=str(64 << 40), BlockSize=256 * MIB)
assert settings(dynamic)["Type"] == "3" and settings(fixed)["Type"] == "2"
assert settings(sectors)["LogicalSectorSize"] == "4096" and settings(sectors)["BlockSize"] == str(MIB)
assert settings(huge)["MaxInternalSize"] == str(64 << 40)
assert settings(dynamic)["Path"] == dynamic
assert int(state(fixed)["FileSize"]) > 16 * MIB > int(state(dynamic)["FileSize"])
assert state(dynamic)["InUse"].upper() == "FALSE"

job("ResizeVirtualHardDisk", 4, Path=dynamic, MaxInternalSize=96 * MIB)
assert settings(dynamic)["MaxInternalSize"] == str(96 * MIB)
job("CompactVirtualHardDisk", 3, Path=dynamic, Mode=0)
converted = folder + r"\converted.vhd"
target = embedded("Msvm_VirtualHardDiskSettingData", {"Path": converted, "Type": FIXED, "Format": VHD})
job("ConvertVirtualHardDisk", 6, SourcePath=sectors.replace("4k", "fixed"), VirtualDiskSettingData=target)
assert settings(converted)["Format"] == "2", settings(converted)
for path in (dynamic, fixed, sectors, converted):
    job("ValidateVirtualHardDisk", 9, Path=path)

refused(32768, "CreateVirtualFloppyDisk", Path=dynamic)
refused(32779, "ValidateVirtualHardDisk", Path=folder + r"\none.vhdx")
refused(32773, "ResizeVirtualHardDisk", Path=dynamic, MaxInternalSize=513)
again = embedded("Msvm_VirtualHardDiskSettingData", {"Path": dynamic, "Type": DYNAMIC, "Format": VHDX, "MaxInternalSize": MIB})
refused(32768, "CreateVirtualHardDisk", VirtualDiskSettingData=again)
