"""Every field of the bodies that can give a client the host, and what the guard does about it.

Performs no I/O. A row names a field as the Engine API's definition has it (v1.25 to v1.55, which
hold engine 20's 1.41 and engine 28's 1.51), its type, the verdict, and the reason. A field that no
row names is refused, wherever it stands. `tests/test_guard.py` holds the rows against the lists of
fields in the definitions.

    NAME@SINCE-UNTIL   the versions that have the field; none: all; @-: the engine reads it, no
                       definition has it
    type               text, number, real, flag, texts, numbers, words (text or texts), map (text
                       to text), set (text to nothing), pairs (lists of texts), any, or a shape:
                       Name, [Name] a list, {Name} a map, {[Name]} a map of lists
    verdict            safe: taken as it is. fields: its own fields are judged. default: must be
                       null, false, zero or empty. Any other: a judge of this name in `guardrules`
"""

from __future__ import annotations

import re
from typing import NamedTuple

RESOURCES = """
CpuShares                number    safe      a weight
Memory                   number    safe      a limit
CgroupParent             text      cgroup-parent  another cgroup has other limits than the engine's
BlkioWeight              number    safe      a weight
BlkioWeightDevice        [Weight]  fields    of input and output
BlkioDeviceReadBps       [Rate]    fields    a limit
BlkioDeviceWriteBps      [Rate]    fields    a limit
BlkioDeviceReadIOps      [Rate]    fields    a limit
BlkioDeviceWriteIOps     [Rate]    fields    a limit
CpuPeriod                number    safe      a limit
CpuQuota                 number    safe      a limit
CpuRealtimePeriod        number    safe      a limit; real time is had within the engine's own share
CpuRealtimeRuntime       number    safe      a limit; real time is had within the engine's own share
CpusetCpus               text      safe      a limit
CpusetMems               text      safe      a limit
Devices                  [Device]  devices   a device of the host
DeviceCgroupRules@1.28   texts     device-rule     access to devices of the host
DeviceRequests@1.40      [DeviceRequest]  device-requests  devices of the host, by a driver
DiskQuota-1.39           number    safe      a limit
KernelMemory@1.36-1.41   number    safe      a limit
KernelMemoryTCP@1.40-1.51  number  safe      a limit
MemoryReservation        number    safe      a limit
MemorySwap               number    safe      a limit
MemorySwappiness         number    safe      a weight
NanoCpus                 number    safe      a limit
NanoCPUs@1.27-1.27       number    safe      the same, as one definition spelled it
OomKillDisable           flag      default   the kernel ends other processes of the host instead
PidsLimit                number    safe      a limit
Ulimits                  [Ulimit]  ulimits   limits of the engine's that hold its containers
CpuCount                 number    safe      of Windows
CpuPercent               number    safe      of Windows
IOMaximumIOps            number    safe      of Windows
IOMaximumBandwidth       number    safe      of Windows
"""
RESTART = "RestartPolicy  Restart  fields  when the engine starts it again\n"
INIT = "Init@1.37      flag     safe    a process in the container\n"

FIELD_ROWS = {
    "Config": """
Hostname         text      safe      a name inside the container
Domainname       text      safe      a name inside the container
User             text      safe      a user inside the container, who has its capabilities only
AttachStdin      flag      safe      a stream of the container
AttachStdout     flag      safe      a stream of the container
AttachStderr     flag      safe      a stream of the container
ExposedPorts     set       safe      ports inside the container
Tty              flag      safe      a stream of the container
OpenStdin        flag      safe      a stream of the container
StdinOnce        flag      safe      a stream of the container
Env              texts     safe      read inside the container
Cmd              words     safe      runs inside the container
Healthcheck      Health    fields    runs inside the container
ArgsEscaped      flag      safe      of Windows
Image            text      safe      the files inside the container
Volumes          set       targets   Podman takes SOURCE:TARGET here for a mount
WorkingDir       text      safe      a folder inside the container
Entrypoint       words     safe      runs inside the container
NetworkDisabled  flag      safe      takes something away
MacAddress-1.51  text      safe      an address in the container's network
OnBuild          texts     safe      runs inside a build
Labels           map       safe      the engine only stores them
StopSignal       text      safe      sent to the container
StopTimeout      number    safe      when it is ended
Shell            words     safe      runs inside the container
""",
    "Health": """
Test                 words   safe  runs inside the container
Interval             number  safe  a time
Timeout              number  safe  a time
Retries              number  safe  a count
StartPeriod@1.29     number  safe  a time
StartInterval@1.44   number  safe  a time
""",
    "HostConfig": RESOURCES
    + RESTART
    + INIT
    + """
Binds                  texts       binds       files of the host
ContainerIDFile        text        safe        the client writes this file, the engine does not
LogConfig              LogConfig   log-config  a driver that sends the log elsewhere
NetworkMode            text        network     another network namespace
PortBindings           {[Port]}    fields      ports of the host that lead into the container
AutoRemove             flag        safe        what happens at its end
VolumeDriver           text        volume-driver    a driver that mounts what it likes
VolumesFrom            texts       volumes-from     the volumes of another container
Mounts                 [Mount]     mounts      files of the host
CapAdd                 texts       capability  a capability that containers do not have
CapDrop                texts       safe        takes something away
CgroupnsMode@1.41      text        cgroupns    the host's cgroup namespace
ConsoleSize            numbers     safe        of a terminal
Annotations@1.43       map         annotation  orders for the runtime
Capabilities@1.40-1.40 any         default     capabilities that containers do not have
Dns                    texts       safe        a file inside the container
DnsOptions             texts       safe        a file inside the container
DnsSearch              texts       safe        a file inside the container
ExtraHosts             texts       safe        a file inside the container
GroupAdd               texts       safe        groups of files inside the container
IpcMode                text        ipc         the host's or another container's shared memory
Cgroup                 text        cgroup      another container's cgroup
Links                  texts       links       another container's variables and addresses
OomScoreAdj            number      default     whom the kernel ends first, of the whole host
PidMode                text        pid         the host's or another container's processes
Privileged             flag        default     all capabilities and devices of the host
PublishAllPorts        flag        safe        ports of the host that lead into the container
ReadonlyRootfs         flag        safe        takes something away
SecurityOpt            texts       security-opt     less confinement
StorageOpt             map         storage-opt options of the storage driver
Tmpfs                  map         tmpfs       memory as a file system, by mount options
UTSMode                text        uts         the host's name
UsernsMode             text        userns      the host's users
ShmSize                number      safe        memory
Sysctls                map         sysctl      settings of the kernel
Runtime                text        runtime     another runtime than the engine's own
Isolation              text        isolation   of Windows
MaskedPaths@1.38       texts       kernel-paths     files of the kernel that containers do not see
ReadonlyPaths@1.38     texts       kernel-paths     files of the kernel that containers do not write
""",
    "ContainerUpdate": RESOURCES + RESTART + INIT,
    "Restart": """
Name               text    safe  when the engine starts it again
MaximumRetryCount  number  safe  a count
""",
    "Weight": """
Path    text    safe  names a device to limit its use
Weight  number  safe  a weight
""",
    "Rate": """
Path  text    safe  names a device to limit its use
Rate  number  safe  a limit
""",
    "Device": """
PathOnHost         text  safe  judged with the device
PathInContainer    text  safe  a path inside the container
CgroupPermissions  text  safe  judged with the device
""",
    "DeviceRequest": """
Driver@1.40        text    safe  judged with the request
Count@1.40         number  safe  judged with the request
DeviceIDs@1.40     texts   safe  judged with the request
Capabilities@1.40  pairs   safe  judged with the request
Options@1.40       map     safe  judged with the request
""",
    "Ulimit": """
Name  text    safe  judged with the limit
Soft  number  safe  a limit
Hard  number  safe  a limit
""",
    "LogConfig": """
Type    text  safe  judged with the options
Config  map   safe  judged with the driver
""",
    "Port": """
HostIp    text  safe  an address of the host, of which it takes a port
HostPort  text  safe  a port of the host
""",
    "Mount": """
Target            text           target  Podman takes what is behind a comma for options
Source            text           safe    judged with the mount
Type              text           safe    judged with the mount
ReadOnly          flag           safe    judged with the mount
Consistency@1.29  text           safe    of macOS
BindOptions       BindOptions    fields  judged with the mount
VolumeOptions     VolumeOptions  fields  judged with the mount
ImageOptions@1.48 ImageOptions   fields  of an image's files
TmpfsOptions      TmpfsOptions   fields  judged with the mount
ClusterOptions@-  any            default a cluster's volume
""",
    "BindOptions": """
Propagation                  text  safe  judged with the mount
NonRecursive@1.40            flag  safe  takes something away
CreateMountpoint@1.42        flag  safe  makes the folder that the mount names
ReadOnlyNonRecursive@1.44    flag  safe  judged with the mount
ReadOnlyForceRecursive@1.44  flag  safe  takes something away
""",
    "VolumeOptions": """
NoCopy        flag          safe    takes something away
Labels        map           safe    the engine only stores them
DriverConfig  DriverConfig  fields  judged with the mount
Subpath@1.45  text          safe    a folder inside the volume
""",
    "DriverConfig": """
Name     text  safe  judged with the options
Options  map   safe  judged with the driver
""",
    "ImageOptions": """
Subpath@1.48  text  safe  a folder inside the image
""",
    "TmpfsOptions": """
SizeBytes     number  safe  a limit
Mode          number  safe  a mode inside the container
Options@1.46  pairs   safe  judged with the mount
""",
    "Networking": """
EndpointsConfig  {Endpoint}  endpoints  the networks of the container
""",
    "Endpoint": """
IPAMConfig           Address  fields           an address in a network
Links                texts    links            another container's addresses
MacAddress           text     safe             an address in a network
Aliases              texts    safe             names in a network
NetworkID            text     network-id       the network of the endpoint
EndpointID           text     safe             the engine sets it
Gateway              text     safe             the engine sets it
IPAddress            text     safe             the engine sets it
IPPrefixLen          number   safe             the engine sets it
IPv6Gateway          text     safe             the engine sets it
GlobalIPv6Address    text     safe             the engine sets it
GlobalIPv6PrefixLen  number   safe             the engine sets it
DriverOpts@1.32      map      network-option   options of the network's driver
DNSNames@1.44        texts    safe             the engine sets it
GwPriority@1.48      number   safe             which network has the gateway
""",
    "Address": """
IPv4Address   text   safe  an address in a network
IPv6Address   text   safe  an address in a network
LinkLocalIPs  texts  safe  addresses in a network
""",
    "ExecCreate": """
AttachStdin       flag     safe     a stream of the container
AttachStdout      flag     safe     a stream of the container
AttachStderr      flag     safe     a stream of the container
Container@-       text     safe     docker-py and aiodocker send it; the path is what counts
Detach@-          flag     safe     whether the client waits; the docker CLI sends it
DetachKeys        text     safe     of a terminal
detachKeys@-      text     safe     the same, as aiodocker spells it
Tty               flag     safe     of a terminal
Env               texts    safe     read inside the container
Cmd               words    safe     runs inside the container
Privileged        flag     default  all capabilities
User              text     safe     a user inside the container
WorkingDir@1.35   text     safe     a folder inside the container
ConsoleSize@1.42  numbers  safe     of a terminal
""",
    "VolumeCreate": """
Name                    text  safe     a name
Driver                  text  safe     judged with the options
DriverOpts              map   safe     judged with the driver
Labels                  map   safe     the engine only stores them
ClusterVolumeSpec@1.42  any   default  a cluster's volume, which its driver mounts
""",
    "NetworkCreate": """
Name                  text     network-name    a name
CheckDuplicate-1.45   flag     safe            the engine looks whether the name is new
Driver                text     network-driver  a driver that reaches the host's own networks
Internal              flag     safe            takes something away
IPAM                  Ipam     fields          the addresses of the network
EnableIPv6            flag     safe            the kind of its addresses
EnableIPv4@1.47       flag     safe            the kind of its addresses
Options               map      network-option  options of the network's driver
Labels                map      safe            the engine only stores them
Attachable@1.27       flag     safe            who may join a swarm's network
Ingress@1.29          flag     default         the swarm's own network
Scope@1.41            text     safe            where the network is known
ConfigOnly@1.41       flag     safe            no network, but its settings, which are judged
ConfigFrom@1.41       From     fields          settings that were judged when they were made
""",
    "From": """
Network@1.41  text  safe  a name
""",
    "Ipam": """
Driver   text          ipam-driver  a driver that gives the addresses
Config   [IpamConfig]  fields       the addresses of the network
Options  map           default      options of that driver
""",
    "IpamConfig": """
Subnet@1.41              text  subnet  the host sends what is for these addresses to the network
IPRange@1.41             text  subnet  engine 20 takes what is outside the subnet
Gateway@1.41             text  subnet  the host itself gets this address
AuxiliaryAddresses@1.41  map   safe    addresses of the subnet
""",
    "NetworkConnect": """
Container       text      safe    which container
EndpointConfig  Endpoint  fields  its address in the network
""",
    "Service": """
Name            text            safe    a name
Labels          map             safe    the engine only stores them
TaskTemplate    Task            fields  the service's containers
Mode            Mode            fields  how many of them
UpdateConfig    Rollout         fields  times and counts
RollbackConfig@1.28  Rollout    fields  times and counts
Networks        [Attachment]    fields  the networks of the containers
EndpointSpec    EndpointSpec    fields  ports of the hosts that lead into the containers
""",
    "Task": """
ContainerSpec               ContainerSpec  fields     a container
Resources                   TaskResources  fields     limits
RestartPolicy               TaskRestart    fields     times and counts
Placement                   Placement      fields     where it runs
ForceUpdate                 number         safe       a count
Networks                    [Attachment]   fields     the networks of the container
LogDriver                   LogDriver      log-config a driver that sends the log elsewhere
Runtime@1.30                text           task-runtime     a plugin, which runs on the host itself
PluginSpec@1.31             any            default    a plugin, which runs on the host itself
NetworkAttachmentSpec@1.38  any            default    the endpoint of another container
""",
    "ContainerSpec": """
Image                text          safe        the files inside the container
Command              texts         safe        runs inside the container
Args                 texts         safe        runs inside the container
Env                  texts         safe        read inside the container
Dir                  text          safe        a folder inside the container
User                 text          safe        a user inside the container
Labels               map           safe        the engine only stores them
TTY                  flag          safe        a stream of the container
Mounts               [Mount]       mounts      files of the host
StopGracePeriod      number        safe        a time
DNSConfig            Dns           fields      a file inside the container
Hostname@1.27        text          safe        a name inside the container
Groups@1.27          texts         safe        groups of files inside the container
OpenStdin@1.27       flag          safe        a stream of the container
ReadOnly@1.27        flag          safe        takes something away
HealthCheck@1.27     Health        fields      runs inside the container
Hosts@1.27           texts         safe        a file inside the container
Secrets@1.27         [SecretFile]  fields      files inside the container
StopSignal@1.28      text          safe        sent to the container
Privileges@1.30      any           privileges  less confinement
Configs@1.30         [ConfigFile]  fields      files inside the container
Isolation@1.35       text          isolation   of Windows
Init@1.38            flag          safe        a process in the container
Sysctls@1.40         map           sysctl      settings of the kernel
CapabilityAdd@1.41   texts         capability  a capability that containers do not have
CapabilityDrop@1.41  texts         safe        takes something away
Ulimits@1.41         [Ulimit]      ulimits     limits of the engine's that hold its containers
OomScoreAdj@1.46     number        default     whom the kernel ends first, of the whole host
""",
    "Dns": """
Nameservers  texts  safe  a file inside the container
Search       texts  safe  a file inside the container
Options      texts  safe  a file inside the container
""",
    "SecretFile": """
File@1.27        File  fields  a file inside the container
SecretID@1.27    text  safe    which secret
SecretName@1.27  text  safe    which secret
""",
    "ConfigFile": """
File@1.30        File  fields  a file inside the container
Runtime@1.40     any   default a credential specification of Windows
ConfigID@1.30    text  safe    which config
ConfigName@1.30  text  safe    which config
""",
    "File": """
Name@1.27  text    safe  a path inside the container
UID@1.27   text    safe  a user inside the container
GID@1.27   text    safe  a group inside the container
Mode@1.27  number  safe  a mode inside the container
""",
    "TaskResources": """
Limits                 Limits        fields  limits
Reservations           Reservations  fields  where it runs
SwapBytes@1.52         number        safe    a limit
MemorySwappiness@1.52  number        safe    a weight
""",
    "Limits": """
NanoCPUs                    number     safe    a limit
MemoryBytes                 number     safe    a limit
Pids@1.41                   number     safe    a limit
GenericResources@1.32-1.40  [Generic]  fields  counts of what a node has been said to have
""",
    "Reservations": """
NanoCPUs               number     safe    where it runs
MemoryBytes            number     safe    where it runs
GenericResources@1.32  [Generic]  fields  counts of what a node has been said to have
""",
    "Generic": """
NamedResourceSpec@1.32     Named     fields  counts of what a node has been said to have
DiscreteResourceSpec@1.32  Discrete  fields  counts of what a node has been said to have
""",
    "Named": """
Kind@1.32   text  safe  a name
Value@1.32  text  safe  a name
""",
    "Discrete": """
Kind@1.32   text    safe  a name
Value@1.32  number  safe  a count
""",
    "TaskRestart": """
Condition    text    safe  when it is started again
Delay        number  safe  a time
MaxAttempts  number  safe  a count
Window       number  safe  a time
""",
    "Placement": """
Constraints       texts         safe    where it runs
Preferences@1.28  [Preference]  fields  where it runs
MaxReplicas@1.40  number        safe    a count
Platforms@1.30    [Platform]    fields  where it runs
""",
    "Preference": """
Spread@1.28  Spread  fields  where it runs
""",
    "Spread": """
SpreadDescriptor@1.28  text  safe  where it runs
""",
    "Platform": """
Architecture@1.30  text  safe  where it runs
OS@1.30            text  safe  where it runs
""",
    "LogDriver": """
Name     text  safe  judged with the options
Options  map   safe  judged with the driver
""",
    "Attachment": """
Target           text   service-network  the host's own network
Aliases          texts  safe             names in a network
DriverOpts@1.39  map    network-option   options of the network's driver
""",
    "Mode": """
Replicated          Replicas  fields  a count
Global              Nothing   fields  one on each node
ReplicatedJob@1.41  Job       fields  a count
GlobalJob@1.41      Nothing   fields  one on each node
""",
    "Nothing": "",
    "Replicas": """
Replicas  number  safe  a count
""",
    "Job": """
MaxConcurrent@1.41     number  safe  a count
TotalCompletions@1.41  number  safe  a count
""",
    "Rollout": """
Parallelism      number  safe  a count
Delay            number  safe  a time
FailureAction    text    safe  what happens at a failure
Monitor          number  safe  a time
MaxFailureRatio  real    safe  a share
Order@1.29       text    safe  which of two comes first
""",
    "EndpointSpec": """
Mode   text           safe    how its ports are shared
Ports  [ServicePort]  fields  ports of the hosts that lead into the containers
""",
    "ServicePort": """
Name              text    safe  a name
Protocol          text    safe  tcp, udp or sctp
TargetPort        number  safe  a port inside the container
PublishedPort     number  safe  a port of the hosts
PublishMode@1.34  text    safe  which hosts
""",
    "Secret": """
Name             text  safe     a name
Labels           map   safe     the engine only stores them
Data             text  safe     bytes that a container may read
Driver@1.31      any   default  a plugin that gives the secret
Templating@1.37  any   default  fills in what the service's containers have
""",
}
#: what the body of a container's creation has beside the fields of Config
FIELD_ROWS["ContainerCreate"] = (
    FIELD_ROWS["Config"]
    + """
HostConfig        HostConfig  fields  what it has of the host
NetworkingConfig  Networking  fields  its networks
name@-            text        safe    dockerode and Portainer send it here too; nobody reads it
VolumesFrom@-     texts       default  dockerode sends an empty one here; engine 20 reads it
"""
)

ROW = re.compile(r"(\w+)(?:@(-|1\.\d+))?(?:-(1\.\d+))? +([\w\[\]{}]+) +([\w-]+) +(\S.*)")


class Field(NamedTuple):
    """A row. `since`, `until`: minor versions of API 1; `defined`: whether a definition has it."""

    name: str
    type: str
    verdict: str
    reason: str
    since: int
    until: int
    defined: bool


FIRST_MINOR, LAST_MINOR = 25, 999  # versions before 1.25 have no definition that can be read


def field_of(row: str) -> Field:
    """The field that a row of the table names."""
    match = ROW.fullmatch(row)
    assert match is not None, row
    name, since, until, kind, verdict, reason = match.groups()
    first = FIRST_MINOR if since in (None, "-") else int(since[2:])
    last = int(until[2:]) if until else LAST_MINOR
    return Field(name, kind, verdict, reason, first, last, since != "-")


Shape = dict[str, Field]


def shapes_of(rows: dict[str, str]) -> dict[str, Shape]:
    """The table by shape and name."""
    shapes: dict[str, Shape] = {}
    for shape, text in rows.items():
        fields = [field_of(row) for row in text.splitlines() if row]
        shapes[shape] = {field.name: field for field in fields}
        assert len(shapes[shape]) == len(fields), shape
    return shapes


SHAPES = shapes_of(FIELD_ROWS)
