"""pypsrp ends jobs and reads what they say: an export that is cancelled, one over another, one that somebody kills.

Arguments: the machine's name, and the Windows path of the folder to export to. Exports stand still at their half.
"""

import sys
import xml.etree.ElementTree as ET

from hyperv import Hyperv, Refused

host = Hyperv()
name, folder = sys.argv[1:]
machine = host.machine(name)
service = host.only("Msvm_VirtualSystemManagementService")


def export(to):
    return host.call(service, "ExportSystemDefinition", ComputerSystem=machine, ExportDirectory=to)


def until(job, done):
    while True:
        seen = host.fetch(job)
        if done(int(seen["JobState"]), int(seen["PercentComplete"])):
            return seen


def errors(job):
    said = host.call(job, "GetErrorEx")["Errors"]
    for text in said if isinstance(said, list) else [said] if said else []:
        yield {p.get("NAME"): p.findtext("VALUE") for p in ET.fromstring(text).iter("PROPERTY")}


def ended(state, percent):
    return state in (7, 8, 9, 10, 32768)


# Cancelled half way, as clients do it: kill, and wait until the job says that it is.
for end in ({"RequestedState": 5}, {"RequestedState": 4}, {"DeleteOnKill": False}):
    job = export(folder + r"\cancelled")["Job"]
    under_way = until(job, lambda state, percent: percent >= 50)
    assert under_way["JobState"] == "4" and under_way["Cancellable"] == "true", under_way
    assert under_way["ErrorCode"] == "0" and under_way["JobStatus"], under_way
    status = host.fetch(machine)["OperationalStatus"]
    assert "32773" in status, status
    assert host.call(job, "GetErrorEx")["Errors"] is None, "it is under way"
    method = "KillJob" if "DeleteOnKill" in end else "RequestStateChange"
    host.call(job, method, **end)
    over = until(job, ended)
    assert over["JobState"] == "9" and over["ErrorCode"] == "0" and over["Cancellable"] == "false", over
    try:
        host.call(job, "RequestStateChange", RequestedState=5)
        raise AssertionError("ended twice")
    except Refused as refused:
        assert refused.code == 4097, refused
(affected,) = host.related(job, "Msvm_ComputerSystem", "Msvm_AffectedJobElement")
assert affected.selectors["Name"] == machine.selectors["Name"], affected.selectors

# Over what is there: a job that failed, and says why.
job = export(folder + r"\taken")["Job"]
over = until(job, ended)
assert over["JobState"] == "10" and over["ErrorCode"] == "32768", over
assert "not empty" in over["ErrorDescription"] and "`C:\\" in over["ErrorDescription"], over
(error,) = errors(job)
assert error["MessageID"] == "already-exists" and error["Message"] == over["ErrorDescription"], error
said = host.call(job, "GetError")["Error"]
assert over["ErrorDescription"] in host.call(service, "FormatError", Errors=[said])["ErrorMessage"]
