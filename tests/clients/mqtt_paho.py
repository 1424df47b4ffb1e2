"""paho-mqtt against the broker, in MQTT 3.1.1 and 5: QoS 1, a batch, retained, last will, forbidden topics, a wrong password.

Publishes readings of one device and prints what was acknowledged; the caller looks for exactly that in SQL. A forbidden publish must
not be acknowledged as if it were stored: the broker closes the connection, in
both versions.
"""

import argparse
import json
import sys
import threading
import time

import paho.mqtt.client as mqtt

DEADLINE_S = 20
IDENTIFIER = "electricity.voltage.rms.l1"


def reading(device, minute, value):
    request = {"measurements": {IDENTIFIER: value}, "updateState": True, "eventDate": f"2026-11-16T08:{minute:02}:00Z"}
    return {"hardwareId": device, "type": "DeviceMeasurements", "request": request}


class Session:
    """One connection, with everything the broker said to it."""

    def __init__(self, arguments, version, client_id, user, password, will=None):
        clean = {} if version == 5 else {"clean_session": True}
        protocol = mqtt.MQTTv5 if version == 5 else mqtt.MQTTv311
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, reconnect_on_failure=False, **clean)
        self.client.username_pw_set(user, password)
        if will is not None:
            self.client.will_set(*will)
        self.changed = threading.Condition()
        self.connect_reason = None
        self.disconnected = False
        self.acknowledged = {}
        self.subscribed = {}
        self.messages = []
        self.client.on_connect = lambda c, u, flags, reason, properties: self.note(connect_reason=reason)
        self.client.on_disconnect = lambda c, u, flags, reason, properties: self.note(disconnected=True)
        self.client.on_publish = lambda c, u, mid, reason, properties: self.note(acknowledged={**self.acknowledged, mid: reason})
        self.client.on_subscribe = lambda c, u, mid, reasons, properties: self.note(subscribed={**self.subscribed, mid: reasons})
        self.client.on_message = lambda c, u, message: self.note(messages=[*self.messages, message])
        self.client.connect(arguments.host, arguments.port, keepalive=20)
        self.client.loop_start()

    def note(self, **changes):
        with self.changed:
            self.__dict__.update(changes)
            self.changed.notify_all()

    def wait(self, condition, what, deadline_s=DEADLINE_S):
        with self.changed:
            if not self.changed.wait_for(condition, timeout=deadline_s):
                sys.exit(f"{what}: nothing for {deadline_s} s")

    def connected(self):
        self.wait(lambda: self.connect_reason is not None or self.disconnected, "CONNACK")
        return self.connect_reason is not None and not self.connect_reason.is_failure

    def publish(self, topic, payload, retain=False):
        """'stored', 'refused' or 'closed'."""
        mid = self.client.publish(topic, json.dumps(payload), qos=1, retain=retain).mid
        self.wait(lambda: mid in self.acknowledged or self.disconnected, f"PUBACK for {topic}")
        if mid not in self.acknowledged:
            return "closed"
        return "refused" if self.acknowledged[mid].is_failure else "stored"

    def subscribe(self, pattern):
        mid = self.client.subscribe(pattern, qos=1)[1]
        self.wait(lambda: mid in self.subscribed or self.disconnected, f"SUBACK for {pattern}")
        return mid in self.subscribed and not any(reason.is_failure for reason in self.subscribed[mid])

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def die(self):
        """As a meter does that loses its supply: no DISCONNECT, just a dead socket."""
        self.client.loop_stop()
        self.client.socket().close()


def check_version(arguments, version):
    device, name = arguments.device, f"paho-{version}"
    events = f"flexmeter/{arguments.tenant}/{device}/events"
    first = 10 if version == 5 else 0
    stored = []

    wrong = Session(arguments, version, f"{name}-wrong", device, arguments.password + "-wrong")
    result = {"version": version, "wrong_password_refused": not wrong.connected()}
    wrong.close()

    session = Session(arguments, version, name, device, arguments.password)
    if not session.connected():
        sys.exit(f"the device could not connect: {session.connect_reason}")
    batch = [reading(device, first + 1, 231.0), reading(device, first + 2, 232.0)]
    for payload, retain in ((reading(device, first, 230.0), False), (batch, False), (reading(device, first + 3, 233.0), True)):
        outcome = session.publish(events, payload, retain)
        if outcome != "stored":
            sys.exit(f"a publish to {events} was {outcome}")
        stored += payload if isinstance(payload, list) else [payload]
    result["own_commands"] = session.subscribe(f"flexmeter/{arguments.tenant}/{device}/commands")
    result["foreign_commands"] = session.subscribe(f"flexmeter/{arguments.tenant}/somebody-else/commands")
    session.close()

    for topic in (f"flexmeter/{arguments.tenant}/somebody-else/events", f"flexmeter/{arguments.tenant}/{device}/commands", "elsewhere"):
        session = Session(arguments, version, f"{name}-forbidden", device, arguments.password)
        session.connected()
        result.setdefault("forbidden", {})[topic] = session.publish(topic, reading("somebody-else", first, 1.0))
        session.close()

    # results are retained for whoever comes later; events are not, because the log keeps them
    estimate = f"flexmeter/{arguments.tenant}/grid/{name}/estimate"
    service = Session(arguments, version, f"{name}-service", arguments.admin, arguments.admin_password)
    if not service.connected() or service.publish(estimate, {"j": 1.0}, True) != "stored":
        sys.exit("the service could not publish a result")
    if not service.subscribe(events) or not service.subscribe(estimate):
        sys.exit("the service could not subscribe")
    service.wait(lambda: service.messages, "the retained result")
    result["retained"] = service.messages[0].retain and service.messages[0].topic == estimate

    last_words = reading(device, first + 4, 0.0)
    dying = Session(arguments, version, f"{name}-dying", device, arguments.password, will=(events, json.dumps(last_words), 1, False))
    if not dying.connected():
        sys.exit(f"a device with a last will could not connect: {dying.connect_reason}")
    dying.die()
    service.wait(lambda: any(json.loads(m.payload) == last_words for m in service.messages), "the last will", 60)
    result["will"] = True
    stored.append(last_words)
    service.close()

    foreign = Session(arguments, version, f"{name}-foreign-will", device, arguments.password,
                      will=(f"flexmeter/{arguments.tenant}/somebody-else/events", json.dumps(reading("somebody-else", 5, 1.0)), 1, False))
    result["foreign_will_refused"] = not foreign.connected()
    foreign.close()
    result["stored"] = [[m["request"]["eventDate"], m["request"]["measurements"][IDENTIFIER]] for m in stored]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tenant", default="default")
    parser.add_argument("--device", required=True)
    parser.add_argument("--password", required=True, help="the device's password")
    parser.add_argument("--admin", default="admin")
    parser.add_argument("--admin-password", required=True)
    arguments = parser.parse_args()
    started = time.monotonic()
    versions = [check_version(arguments, version) for version in (4, 5)]
    print(json.dumps({"client": "paho", "versions": versions, "seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
