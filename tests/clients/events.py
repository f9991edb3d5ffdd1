"""pypsrp subscribes to what happens to a machine and to jobs while another client starts and stops it. Argument: its name."""

import sys
import time

from hyperv import Hyperv

name = sys.argv[1]
other = Hyperv()
machine = other.machine(name)
STATE = (
    "SELECT * FROM __InstanceModificationEvent WITHIN 2 WHERE TargetInstance ISA 'Msvm_ComputerSystem' "
    "AND TargetInstance.EnabledState <> PreviousInstance.EnabledState"
)
JOBS = "SELECT * FROM CIM_InstIndication WHERE SourceInstance ISA 'Msvm_ConcreteJob'"


def until(events, wanted):
    return next(event for event in events if wanted(event))


with Hyperv().subscribed(STATE) as states, Hyperv().subscribed(JOBS) as jobs:
    output = other.call(machine, "RequestStateChange", RequestedState=2)
    other.wait(output)
    began = time.monotonic()
    started = until(states, lambda event: event["TargetInstance"]["EnabledState"] == "2")
    print(f"told of {time.monotonic() - began:.3f} s after the job was seen to have ended")
    assert started.class_name == "__InstanceModificationEvent", started.class_name
    assert started["TargetInstance"]["ElementName"] == name and started["PreviousInstance"]["EnabledState"] != "2"
    job = output["Job"].selectors["InstanceID"]
    made = until(jobs, lambda event: event["SourceInstance"]["InstanceID"] == job)
    assert made.class_name == "CIM_InstCreation", made.class_name
    # One that is over before anybody looked is told of once.
    if made["SourceInstance"]["JobState"] != "7":
        ended = until(jobs, lambda event: event["SourceInstance"]["InstanceID"] == job and event["SourceInstance"]["JobState"] == "7")
        assert ended["PreviousInstance"]["JobState"] != "7", ended
    other.wait(other.call(machine, "RequestStateChange", RequestedState=3))
    until(states, lambda event: event["TargetInstance"]["EnabledState"] == "3")
