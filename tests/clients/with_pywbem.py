"""pywbem does the whole round over CIM-XML: `look NAME ID`, `run NAME`, `move NAME FOLDER`, `define DISK`, each as the script of that name does it over
WS-Management, and `server`, which looks at what the server says of itself.
"""

import os
import sys
import time
import urllib.parse
import warnings

import pywbem
from pywbem import CIMError, CIMInstance, CIMInstanceName, Uint8, Uint16, Uint32

NAMESPACE = "root/virtualization/v2"
SETTINGS = "Msvm_VirtualSystemSettingData"
COMPONENT = "Msvm_VirtualSystemSettingDataComponent"

warnings.simplefilter("ignore", ResourceWarning)
url = urllib.parse.urlsplit(os.environ["HYPERV_URL"])
host = pywbem.WBEMConnection(
    f"{url.scheme}://{url.hostname}:{url.port}",
    (url.username, os.environ["HYPERV_PASSWORD"]),
    default_namespace=NAMESPACE,
    no_verification=True,
    use_pull_operations=True,
    timeout=120,
)


class Refused(Exception):
    def __init__(self, method, code):
        super().__init__(f"{method} returned {code}")
        self.code = code


def only(class_name):
    (found,) = host.EnumerateInstanceNames(class_name)
    return found


def find(query):
    return host.ExecQuery("WQL", query)


def machine(name):
    (found,) = find(f'SELECT * FROM Msvm_ComputerSystem WHERE ElementName="{name}"')
    return found.path


def related(path, result, association):
    return host.AssociatorNames(path, AssocClass=association, ResultClass=result)


def call(path, method, **parameters):
    returned, output = host.InvokeMethod(method, path, **parameters)
    if returned not in (0, 4096):
        raise Refused(method, returned)
    return output


def wait(output):
    """The job that a call began, once it is over."""
    path = output.get("Job")
    while path is not None:
        job = host.GetInstance(path)
        if job["JobState"] >= 7:
            # Done, or done with warnings.
            assert job["JobState"] in (7, 32768), (job["JobState"], job["ErrorDescription"])
            return path
        time.sleep(0.05)
    return None


def refused(code, method):
    try:
        method()
    except Refused as refusal:
        assert refusal.code in code, refusal
    else:
        raise AssertionError(f"not refused with {code}")


def look(name, guid):
    guid = guid.upper()
    systems = host.EnumerateInstances("Msvm_ComputerSystem")
    (found,) = [system for system in systems if system["ElementName"] == name]
    assert found["Name"] == guid and host.GetInstance(found.path) == found
    assert host.GetInstance(CIMInstanceName("msvm_computersystem", {"Name": guid.lower()}))["Name"] == guid
    names = host.EnumerateInstanceNames("Msvm_ComputerSystem")
    assert found.path in names and len(names) == len(systems), names
    assert set(names) < set(host.EnumerateInstanceNames("CIM_ComputerSystem")), "a switch is one, too"
    one_by_one = list(host.IterEnumerateInstances("Msvm_ComputerSystem", MaxObjectCount=1))
    assert [one["Name"] for one in one_by_one] == [one["Name"] for one in systems]
    some = host.GetInstance(found.path, PropertyList=["ElementName", "OperationalStatus"])
    assert sorted(some.keys()) == ["ElementName", "OperationalStatus"] and some["OperationalStatus"] == [2], some

    for language in ("WQL", "DMTF:CQL"):
        (short,) = host.ExecQuery(language, f"SELECT Name FROM Msvm_ComputerSystem WHERE ElementName = '{name}'")
        assert short["Name"] == guid and "ElementName" not in short, short
    assert find("SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'nobody'") == []

    (settings,) = related(found.path, SETTINGS, "Msvm_SettingsDefineState")
    assert host.GetInstance(settings)["VirtualSystemIdentifier"] == guid
    (memory,) = related(settings, "Msvm_MemorySettingData", COMPONENT)
    assert host.GetInstance(memory)["VirtualQuantity"] >= 32
    (disk,) = list(host.IterAssociatorInstances(settings, ResultClass="Msvm_StorageAllocationSettingData", MaxObjectCount=1))
    assert disk["HostResource"], disk
    for reference in host.References(found.path, ResultClass="Msvm_SettingsDefineState"):
        assert host.GetInstance(reference.path).properties == reference.properties, "an association is found by its keys"
    service = only("Msvm_VirtualSystemManagementService")
    output = call(service, "GetSummaryInformation", SettingData=[settings], RequestedInformation=[Uint32(n) for n in (0, 1, 4, 100, 103)])
    (summary,) = output["SummaryInformation"]
    assert summary["Name"] == guid and summary["EnabledState"] == found["EnabledState"], summary

    # What names mean is said by the classes.
    declared = host.GetClass("Msvm_ComputerSystem", LocalOnly=False, IncludeClassOrigin=True)
    meaning = pywbem.ValueMapping.for_property(host, NAMESPACE, "Msvm_ComputerSystem", "EnabledState").tovalues(found["EnabledState"])
    assert meaning == "Disabled", meaning
    assert declared.methods["RequestStateChange"].parameters["Job"].reference_class == "CIM_ConcreteJob"
    assert "Name" not in host.GetClass("Msvm_ComputerSystem").properties, "only what the class declares itself"
    assert SETTINGS in [path.classname for path in host.AssociatorNames("Msvm_ComputerSystem")] or host.References("Msvm_ComputerSystem")
    assert {"Key", "ValueMap"} <= {qualifier.name for qualifier in host.EnumerateQualifiers()}

    nobody = CIMInstanceName("Msvm_ComputerSystem", {"CreationClassName": "Msvm_ComputerSystem", "Name": "0" * 8})
    for code, wrong in [
        (pywbem.CIM_ERR_NOT_FOUND, lambda: host.GetInstance(nobody)),
        (pywbem.CIM_ERR_INVALID_CLASS, lambda: host.EnumerateInstances("Msvm_NoSuchClass")),
        (pywbem.CIM_ERR_NOT_FOUND, lambda: host.GetClass("Msvm_NoSuchClass")),
        (pywbem.CIM_ERR_INVALID_NAMESPACE, lambda: host.EnumerateClassNames("root/nowhere")),
        (pywbem.CIM_ERR_INVALID_QUERY, lambda: find("SELECT FROM WHERE")),
        (pywbem.CIM_ERR_METHOD_NOT_FOUND, lambda: call(found.path, "NoSuchMethod")),
        (pywbem.CIM_ERR_INVALID_PARAMETER, lambda: call(found.path, "RequestStateChange", NoSuchParameter="x")),
        (pywbem.CIM_ERR_NOT_SUPPORTED, lambda: host.DeleteInstance(found.path)),
        (pywbem.CIM_ERR_NOT_SUPPORTED, lambda: host.CreateInstance(CIMInstance("Msvm_ComputerSystem", {"ElementName": "x"}))),
    ]:
        try:
            wrong()
        except CIMError as error:
            assert error.status_code == code and error.status_description, error
        else:
            raise AssertionError(f"no CIM error {code}")
    host.ModifyInstance(found)  # all that it was given, which changes nothing


def run(name):
    path = machine(name)

    def request(wanted, expected):
        wait(call(path, "RequestStateChange", RequestedState=Uint16(wanted)))
        state = host.GetInstance(path)["EnabledState"]
        assert state == expected, (wanted, state)

    request(2, 2)
    refused([32775], lambda: call(path, "RequestStateChange", RequestedState=Uint16(2)))
    service = only("Msvm_VirtualSystemManagementService")
    (settings,) = related(path, SETTINGS, "Msvm_SettingsDefineState")
    picture = call(service, "GetVirtualSystemThumbnailImage", TargetSystem=settings, WidthPixels=Uint16(32), HeightPixels=Uint16(24))
    assert len(picture["ImageData"]) == 32 * 24 * 2 and isinstance(picture["ImageData"][0], Uint8)
    (keyboard,) = find(f"SELECT * FROM Msvm_Keyboard WHERE SystemName = '{path['Name']}'")
    call(keyboard.path, "TypeText", asciiText="root")
    for wanted in (9, 2, 6, 2, 3):
        request(wanted, wanted)


def move(name, folder):
    path = machine(name)
    service = only("Msvm_VirtualSystemManagementService")

    def export(to, **settings):
        text = CIMInstance("Msvm_VirtualSystemExportSettingData", {"CopySnapshotConfiguration": Uint8(1), **settings})
        return wait(call(service, "ExportSystemDefinition", ComputerSystem=path, ExportDirectory=to, ExportSettingData=text))

    job = host.GetInstance(export(folder + r"\whole"))
    assert job["JobType"] == 62 and job["PercentComplete"] == 100, job
    export(folder, CreateVmExportSubdirectory=True)
    # An earlier export is not written over, which the job says.
    try:
        export(folder + r"\whole")
    except AssertionError as failed:
        assert "not empty" in str(failed), failed
    else:
        raise RuntimeError("an export was written over an earlier one")
    refused([32769, 32773], lambda: export(r"Z:\nowhere"))

    definition = folder + "\\" + name
    output = call(service, "ImportSystemDefinition", SystemDefinitionFile=definition, GenerateNewSystemIdentifier=True)
    job = wait(output)
    planned = output.get("ImportedSystem") or related(job, "Msvm_PlannedComputerSystem", "Msvm_AffectedJobElement")[0]
    wait(call(service, "ValidatePlannedSystem", PlannedSystem=planned))
    output = call(service, "RealizePlannedSystem", PlannedSystem=planned)
    job = wait(output)
    copy = output.get("ResultingSystem") or related(job, "Msvm_ComputerSystem", "Msvm_AffectedJobElement")[0]
    assert copy["Name"] != path["Name"] and host.GetInstance(copy)["ElementName"] == name
    wait(call(service, "DestroySystem", AffectedSystem=copy))
    assert len(find(f'SELECT * FROM Msvm_ComputerSystem WHERE ElementName="{name}"')) == 1


def define(disk):
    service = only("Msvm_VirtualSystemManagementService")
    made = {"ElementName": "made", "VirtualSystemSubType": "Microsoft:Hyper-V:SubType:2", "Notes": ["by a client"]}
    wait(call(service, "DefineSystem", SystemSettings=CIMInstance(SETTINGS, made)))
    (settings,) = related(machine("made"), SETTINGS, "Msvm_SettingsDefineState")
    assert host.GetInstance(settings)["VirtualSystemSubType"] == "Microsoft:Hyper-V:SubType:2"

    # The whole instance goes back, as a client changes one.
    (memory,) = related(settings, "Msvm_MemorySettingData", COMPONENT)
    changed = host.GetInstance(memory)
    changed["VirtualQuantity"] = pywbem.Uint64(768)
    wait(call(service, "ModifyResourceSettings", ResourceSettings=[changed]))
    assert host.GetInstance(memory)["VirtualQuantity"] == 768

    def add(class_name, **properties):
        resource = CIMInstance(class_name, properties)
        output = call(service, "AddResourceSettings", AffectedConfiguration=settings, ResourceSettings=[resource])
        wait(output)
        (added,) = output["ResultingResourceSettings"]
        return added

    allocation = "Msvm_ResourceAllocationSettingData"
    scsi = "Microsoft:Hyper-V:Synthetic SCSI Controller"
    controllers = [c for c in related(settings, allocation, COMPONENT) if host.GetInstance(c)["ResourceSubType"] == scsi]
    controller = (controllers or [add(allocation, ResourceType=Uint16(6), ResourceSubType=scsi)])[0]
    kind = "Microsoft:Hyper-V:Synthetic Disk Drive"
    drive = add(allocation, ResourceType=Uint16(17), ResourceSubType=kind, Parent=controller.to_wbem_uri(), AddressOnParent="0")
    kind = "Microsoft:Hyper-V:Virtual Hard Disk"
    attached = add(
        "Msvm_StorageAllocationSettingData",
        ResourceType=Uint16(31),
        ResourceSubType=kind,
        Parent=drive.to_wbem_uri(),
        HostResource=[disk],
    )
    assert host.GetInstance(attached)["HostResource"] == [disk]
    renamed = {"InstanceID": host.GetInstance(settings)["InstanceID"], "ElementName": "made anew"}
    wait(call(service, "ModifySystemSettings", SystemSettings=CIMInstance(SETTINGS, renamed)))
    path = machine("made anew")
    wait(call(service, "RemoveResourceSettings", ResourceSettings=[attached]))
    wait(call(service, "DestroySystem", AffectedSystem=path))
    assert find('SELECT * FROM Msvm_ComputerSystem WHERE ElementName="made anew"') == []


def server(name):
    about = pywbem.WBEMServer(host)
    assert about.interop_ns in ("interop", "root/interop"), about.interop_ns
    assert {NAMESPACE, "root/cimv2", "root/interop"} <= set(about.namespaces), about.namespaces
    assert about.brand == "Slipway" and about.version, (about.brand, about.version)
    assert about.cimom_inst["CreationClassName"] == "CIM_ObjectManager"
    names = {profile["RegisteredName"] for profile in about.profiles}
    assert names == {"Profile Registration", "System Virtualization", "Virtual System"}, names
    assert about.get_selected_profiles("DMTF", "Virtual System", "1.0.0")

    def central(profile):
        (selected,) = about.get_selected_profiles("DMTF", profile)
        return about.get_central_instances(selected.path)

    # From a profile to what it is about, in the namespace where that is.
    machines = central("Virtual System")
    assert [host.GetInstance(path)["ElementName"] for path in machines] == [name], machines
    (this,) = central("System Virtualization")
    assert host.GetInstance(this)["Caption"] == "Hosting Computer System" and this.namespace == NAMESPACE
    assert len(central("Profile Registration")) == 2
    conforms = host.EnumerateInstances("CIM_ElementConformsToProfile", namespace="root/interop")
    assert len(conforms) == 4 and host.GetInstance(conforms[-1].path) == conforms[-1], conforms
    (manager,) = host.EnumerateInstanceNames("CIM_ObjectManager", namespace="root/interop")
    spoken = host.Associators(manager, AssocClass="CIM_CommMechanismForManager")
    assert sorted(one["CommunicationMechanism"] for one in spoken) == [2, 4], spoken
    assert len(host.Associators(manager, AssocClass="CIM_NamespaceInManager")) == len(about.namespaces)
    try:
        host.CreateInstance(CIMInstance("CIM_IndicationFilter", {"Name": "f"}), namespace="root/interop")
        raise AssertionError("a filter was made, and nothing is sent")
    except CIMError as error:
        assert error.status_code == pywbem.CIM_ERR_NOT_SUPPORTED, error


if __name__ == "__main__":
    {"look": look, "run": run, "move": move, "define": define, "server": server}[sys.argv[1]](*sys.argv[2:])
