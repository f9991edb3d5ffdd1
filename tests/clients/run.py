"""pypsrp runs a machine: start, wait for the job, thumbnail, keys, pause, resume, save, turn off. Argument: its name."""

import base64
import sys

from hyperv import Hyperv, Refused

host = Hyperv()
machine = host.machine(sys.argv[1])


def state():
    return int(host.fetch(machine)["EnabledState"])


def request(wanted, expected):
    host.wait(host.call(machine, "RequestStateChange", RequestedState=wanted))
    assert state() == expected, (wanted, state())


assert state() == 3
request(2, 2)
# What cannot be is refused with the code that clients take for "is so already".
try:
    host.call(machine, "RequestStateChange", RequestedState=2)
    raise AssertionError("started twice")
except Refused as refused:
    assert refused.code == 32775, refused

service = host.only("Msvm_VirtualSystemManagementService")
(settings,) = host.related(machine, "Msvm_VirtualSystemSettingData", "Msvm_SettingsDefineState")
picture = host.call(service, "GetVirtualSystemThumbnailImage", TargetSystem=settings, WidthPixels=32, HeightPixels=24)
pixels = base64.b64decode(picture["ImageData"])
assert len(pixels) == 32 * 24 * 2, len(pixels)

(keyboard,) = host.find(f"SELECT * FROM Msvm_Keyboard WHERE SystemName = '{machine.selectors['Name']}'")
host.call(keyboard, "TypeText", asciiText="root")

request(9, 9)
request(2, 2)
request(6, 6)
request(2, 2)
request(3, 3)
