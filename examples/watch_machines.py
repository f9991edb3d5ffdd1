#!/usr/bin/env python3
"""Tells what happens to machines until it is stopped. No arguments; Ctrl-C ends the subscription."""

from hyperv import Hyperv

QUERY = "SELECT * FROM __InstanceOperationEvent WITHIN 1 WHERE TargetInstance ISA 'Msvm_ComputerSystem'"
STATES = {"2": "running", "3": "off", "4": "stopping", "6": "saved", "9": "paused", "10": "starting"}
WORDS = {"__InstanceCreationEvent": "is new", "__InstanceDeletionEvent": "is gone"}


def told(event):
    system, before = event["TargetInstance"], event.get("PreviousInstance")
    if event.class_name in WORDS:
        return WORDS[event.class_name]
    was, now = (STATES.get(one["EnabledState"], one["EnabledState"]) for one in (before, system))
    return f"was {was}, is {now}" if was != now else f"changed while {now}"


def main():
    with Hyperv().subscribed(QUERY) as events:
        print("watching", flush=True)
        for event in events:
            print(event["TargetInstance"]["ElementName"], told(event), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
