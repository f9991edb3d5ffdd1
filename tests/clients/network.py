"""pypsrp makes a switch, plugs a machine into it, starts it and finds its port; renames the switch; takes all of it back.

Arguments: the machine's name, and the step: connect, rename, disconnect.
"""

import sys

from hyperv import Hyperv, Refused, embedded

VLAN = "952C5004-4465-451C-8CB8-FA9AB382B773"
name, step = sys.argv[1:]
host = Hyperv()
machine = host.machine(name)
machines = host.only("Msvm_VirtualSystemManagementService")
switches = host.only("Msvm_VirtualEthernetSwitchManagementService")
(settings,) = host.related(machine, "Msvm_VirtualSystemSettingData", "Msvm_SettingsDefineState")


def walk(reference, *steps):
    """The one instance at the end of associations and classes."""
    for association, result in steps:
        (reference,) = host.related(reference, result, association)
    return reference


def own(class_name):
    """The one part of that class that the machine has."""
    (part,) = host.related(settings, class_name, "Msvm_VirtualSystemSettingDataComponent")
    return part


def changed(reference, **values):
    """An instance as it is, but for some values."""
    now = {k: v for k, v in host.fetch(reference).items() if v is not None}
    return embedded(reference.class_name, {**now, **values})


def switch_called(wanted):
    return host.only("Msvm_VirtualEthernetSwitch", f"WHERE ElementName='{wanted}'")


def refused(code, *arguments, **parameters):
    try:
        host.call(*arguments, **parameters)
    except Refused as refusal:
        assert refusal.code == code, refusal
    else:
        raise AssertionError(f"not refused: {arguments}")


PORT_TO_SWITCH = [("Msvm_SystemDevice", "Msvm_VirtualEthernetSwitch")]
ADAPTER_TO_PORT = [
    ("Msvm_DeviceSAPImplementation", "Msvm_LANEndpoint"),
    ("Msvm_ActiveConnection", "Msvm_LANEndpoint"),
    ("Msvm_EthernetDeviceSAPImplementation", "Msvm_EthernetSwitchPort"),
]

if step == "connect":
    made = host.call(
        switches,
        "DefineSystem",
        SystemSettings=embedded(
            "Msvm_VirtualEthernetSwitchSettingData", {"ElementName": "lab", "Notes": ["by a client"]}
        ),
    )
    switch = made["ResultingSystem"]
    assert host.fetch(switch)["ElementName"] == "lab"

    added = host.call(
        machines,
        "AddResourceSettings",
        AffectedConfiguration=settings,
        ResourceSettings=[
            embedded(
                "Msvm_SyntheticEthernetPortSettingData",
                {"ElementName": "front", "StaticMacAddress": True, "Address": "00155D00002A"},
            )
        ],
    )
    adapter = added["ResultingResourceSettings"]
    host.call(
        machines,
        "AddResourceSettings",
        AffectedConfiguration=settings,
        ResourceSettings=[
            embedded(
                "Msvm_EthernetPortAllocationSettingData",
                {"ElementName": "port of web", "Parent": adapter.path(), "HostResource": [switch.path()]},
            )
        ],
    )
    connection = own("Msvm_EthernetPortAllocationSettingData")
    assert host.fetch(connection)["ElementName"] == "port of web"

    # The default of the feature, as Microsoft's samples find it.
    (feature,) = [
        one
        for one in host.find("SELECT * FROM Msvm_EthernetSwitchFeatureCapabilities")
        if host.fetch(one)["FeatureId"] == VLAN
    ]
    (default,) = host.related(
        feature, "Msvm_EthernetSwitchPortVlanSettingData", "Msvm_FeatureSettingsDefineCapabilities"
    )
    added = host.call(
        machines,
        "AddFeatureSettings",
        AffectedConfiguration=connection,
        FeatureSettings=[changed(default, OperationMode=1, AccessVlanId=42)],
    )
    assert host.fetch(added["ResultingFeatureSettings"])["AccessVlanId"] == "42"

    host.wait(host.call(machine, "RequestStateChange", RequestedState=2))
    device = walk(machine, ("Msvm_SystemDevice", "Msvm_SyntheticEthernetPort"))
    assert host.fetch(device)["PermanentAddress"] == "00155D00002A"
    port = walk(device, *ADAPTER_TO_PORT)
    values = host.fetch(port)
    assert values["ElementName"] == "port of web" and values["EnabledState"] == "2", values
    assert host.fetch(walk(port, *PORT_TO_SWITCH))["ElementName"] == "lab"
    assert [one.selectors for one in host.related(switch, "Msvm_EthernetSwitchPort", "Msvm_SystemDevice")] == [
        port.selectors
    ]
elif step == "rename":
    switch = switch_called("lab")
    own_settings = walk(switch, ("Msvm_SettingsDefineState", "Msvm_VirtualEthernetSwitchSettingData"))
    host.call(switches, "ModifySystemSettings", SystemSettings=changed(own_settings, ElementName="office"))
    assert host.fetch(switch)["ElementName"] == "office"
    device = walk(machine, ("Msvm_SystemDevice", "Msvm_SyntheticEthernetPort"))
    assert host.fetch(walk(device, *ADAPTER_TO_PORT, *PORT_TO_SWITCH))["ElementName"] == "office"
    # In use, it is not destroyed, and a guest that runs is not unplugged.
    refused(5, switches, "DestroySystem", AffectedSystem=switch)
    host.wait(host.call(machine, "RequestStateChange", RequestedState=3))
else:
    switch = switch_called("office")
    host.call(machines, "RemoveResourceSettings", ResourceSettings=[own("Msvm_EthernetPortAllocationSettingData")])
    assert host.related(switch, "Msvm_EthernetSwitchPort", "Msvm_SystemDevice") == []
    assert not host.fetch(own("Msvm_EthernetPortAllocationSettingData")).get("HostResource")
    host.call(switches, "DestroySystem", AffectedSystem=switch)
    assert host.find("SELECT * FROM Msvm_VirtualEthernetSwitch WHERE ElementName='office'") == []
