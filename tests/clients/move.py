"""pypsrp moves a machine: exports it with each setting, cancels one, imports, validates, realizes, destroys.

Arguments: the machine's name, and the Windows path of the folder to export to.
"""

import sys

from hyperv import Hyperv, Refused, embedded

host = Hyperv()
name, folder = sys.argv[1:]
machine = host.machine(name)
service = host.only("Msvm_VirtualSystemManagementService")


def export(to, **settings):
    text = embedded("Msvm_VirtualSystemExportSettingData", {"CopySnapshotConfiguration": 1, **settings})
    output = host.call(
        service, "ExportSystemDefinition", ComputerSystem=machine, ExportDirectory=to, ExportSettingData=text
    )
    return host.wait(output)


job = export(folder + r"\whole")
ended = host.fetch(job)
assert ended["JobType"] == "62" and ended["PercentComplete"] == "100", ended
assert ended["TimeBeforeRemoval"] == "00000000000500.000000:000" or ended["TimeBeforeRemoval"].startswith("P"), ended
export(folder, CreateVmExportSubdirectory=True)
export(folder + r"\configuration", CopyVmStorage=False)
for settings, code in [({"CopySnapshotConfiguration": 2}, 32773), ({"CaptureLiveState": 9}, 32773)]:
    try:
        export(folder + r"\refused", **settings)
        raise AssertionError(settings)
    except Refused as refused:
        assert refused.code == code, (settings, refused)
try:
    export(folder + r"\whole")
    raise AssertionError("an export was overwritten")
except RuntimeError as failed:
    assert "not empty" in str(failed), failed
try:
    export(r"Z:\nowhere")
    raise AssertionError("outside of the roots")
except Refused as refused:
    assert refused.code in (32769, 32773), refused

# In again, under a new id.
definition = folder + "\\" + name
output = host.call(
    service, "ImportSystemDefinition", SystemDefinitionFile=definition, GenerateNewSystemIdentifier=True
)
job = host.wait(output)
planned = output["ImportedSystem"] or host.related(job, "Msvm_PlannedComputerSystem", "Msvm_AffectedJobElement")[0]
host.wait(host.call(service, "ValidatePlannedSystem", PlannedSystem=planned))
output = host.call(service, "RealizePlannedSystem", PlannedSystem=planned)
job = host.wait(output)
copy = output["ResultingSystem"] or host.related(job, "Msvm_ComputerSystem", "Msvm_AffectedJobElement")[0]
assert copy.selectors["Name"] != machine.selectors["Name"], copy.selectors
assert host.fetch(copy)["ElementName"] == name
host.wait(host.call(service, "DestroySystem", AffectedSystem=copy))
assert len(host.find(f'SELECT * FROM Msvm_ComputerSystem WHERE ElementName="{name}"')) == 1
