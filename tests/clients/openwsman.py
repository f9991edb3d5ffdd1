"""openwsman's library through its Python binding: list, show, define, change, start, stop, delete.

Argument: the name of a machine that is there. The daemon is asked over plain HTTP.
"""

import os
import sys
import urllib.parse

import pywsman

CLASSES = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/"
WQL = "http://schemas.microsoft.com/wbem/wsman/1/WQL"
SERVICE = CLASSES + "Msvm_VirtualSystemManagementService"

url = urllib.parse.urlsplit(os.environ["HYPERV_URL"])
client = pywsman.Client(url.hostname, url.port, "/wsman", url.scheme, url.username, os.environ["HYPERV_PASSWORD"])
client.transport().set_auth_method(pywsman.BASIC_AUTH_STR)
client.transport().set_verify_peer(0)


def good(document):
    assert document is not None, client.fault_string()
    fault = document.fault() if document.is_fault() else None
    assert fault is None, fault.reason()
    return document


def items(query, references=False):
    """What a query finds, one element each."""
    options = pywsman.ClientOptions()
    if references:
        options.set_flags(pywsman.FLAG_ENUMERATION_ENUM_EPR)
    filter_ = pywsman.Filter()
    filter_.simple(WQL, query)
    found = []
    context = good(client.enumerate(options, filter_, CLASSES + "*")).context()
    while context:
        document = good(client.pull(options, None, CLASSES + "*", str(context)))
        node = document.body().find(pywsman.XML_NS_ENUMERATION, "Items")
        found += [(document, node.get(n)) for n in range(node.size())]
        context = document.context()
    return found


def text(node, name):
    for n in range(node.size()):
        child = node.get(n)
        if child.name() == name:
            return str(child)
    return None


def machine(name):
    """The id and state of the machine with that name."""
    found = items(f"SELECT * FROM Msvm_ComputerSystem WHERE ElementName = '{name}'")
    return [(text(node, "Name"), text(node, "EnabledState")) for _, node in found]


def invoke(uri, method, body=None, properties=(), **selectors):
    options = pywsman.ClientOptions()
    for key, value in selectors.items():
        options.add_selector(key, value)
    for key, value in properties:
        options.add_property(key, value)
    document = good(client.invoke(options, uri, method, body))
    code = str(document.body().find(uri, "ReturnValue"))
    assert code in ("0", "4096"), f"{method}: {code}"
    return document, code


def finished(document):
    """Waits for the job that a method began."""
    selectors = document.body().find(None, "SelectorSet")
    job = str(selectors.get(selectors.size() - 1))
    while True:
        ((_, node),) = items(f"SELECT * FROM Msvm_ConcreteJob WHERE InstanceID = '{job}'")
        state = int(text(node, "JobState"))
        if state >= 7:
            assert state == 7, text(node, "ErrorDescription")
            return


def state(id_, wanted):
    document, code = invoke(
        CLASSES + "Msvm_ComputerSystem",
        "RequestStateChange",
        properties=[("RequestedState", str(wanted))],
        CreationClassName="Msvm_ComputerSystem",
        Name=id_,
    )
    if code == "4096":
        finished(document)


def embedded(method, parameter, class_, **properties):
    document = pywsman.XmlDoc(f"{method}_INPUT")
    root = document.root()
    root.set_ns(SERVICE)
    values = "".join(
        f'<PROPERTY NAME="{name}" TYPE="string"><VALUE>{value}</VALUE></PROPERTY>' for name, value in properties.items()
    )
    root.add(SERVICE, parameter, f'<INSTANCE CLASSNAME="{class_}">{values}</INSTANCE>')
    return document


assert str(client.identify(pywsman.ClientOptions()).root().find(None, "ProductVendor")) == "Slipway"
((there, _),) = machine(sys.argv[1])
options = pywsman.ClientOptions()
options.add_selector("CreationClassName", "Msvm_ComputerSystem")
options.add_selector("Name", there)
got = good(client.get(options, CLASSES + "Msvm_ComputerSystem")).body().child()
assert text(got, "ElementName") == sys.argv[1]

settings = "Msvm_VirtualSystemSettingData"
invoke(SERVICE, "DefineSystem", embedded("DefineSystem", "SystemSettings", settings, ElementName="bound"))
((made, off),) = machine("bound")
assert off == "3", off
walk = f"ASSOCIATORS OF {{Msvm_ComputerSystem.CreationClassName='Msvm_ComputerSystem',Name='{made}'}}"
((_, of_it),) = items(f"{walk} WHERE AssocClass = Msvm_SettingsDefineState")
body = embedded("ModifySystemSettings", "SystemSettings", settings, InstanceID=text(of_it, "InstanceID"), ElementName="unbound")
invoke(SERVICE, "ModifySystemSettings", body)
assert machine("bound") == [] and machine("unbound") == [(made, "3")]

state(made, 2)
assert machine("unbound") == [(made, "2")]
state(made, 3)
assert machine("unbound") == [(made, "3")]

((_, reference),) = items("SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'unbound'", references=True)
assert reference.name() == "EndpointReference", reference.name()
path = f'\\\\.\\root\\virtualization\\v2:Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="{made}"'
body = pywsman.XmlDoc("DestroySystem_INPUT")
body.root().set_ns(SERVICE)
body.root().add(SERVICE, "AffectedSystem", path)
invoke(SERVICE, "DestroySystem", body)
assert machine("unbound") == []
