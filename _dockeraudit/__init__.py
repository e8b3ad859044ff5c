"""The rooms of dockeraudit, low to high: each imports only rooms that stand above it in this list.

    errors         exceptions and exit statuses
    text           text for people: widths, plurals, control characters
    http1          HTTP/1.1 heads and bodies, sans I/O
    routes         what a request target means to the engine
    admission      requests that web pages send; repeated denials
    heldbody       a request's whole body, held until judges have seen it, sans I/O
    strictjson     JSON that two readers cannot understand in two ways, sans I/O
    policy         which requests may pass; native rules
    scope          whose containers a listener's clients get, sans I/O
    scopefilters   the filters of a request, narrowed to a scope, sans I/O
    scoperoutes    the routes that a scoped listener knows, sans I/O
    scopebodies    bodies that name containers or make one, held to a scope, sans I/O
    scopeanswers   answers without the containers out of scope, sans I/O
    scopeobjects   which networks, volumes and images a listener's clients get, sans I/O
    guardfields    the fields of bodies that can give a client the host, as a table
    guardroutes    the requests that can, as a table
    guardfile      what a guard's file admits
    guardrules     is a value beyond what containers have by default?
    guard          no request of its clients gives them the host
    compatible     the variables of other proxies, as a policy
    presets        policies of known clients
    clients        who may connect
    learning       the least settings that admit recorded traffic
    streams        Docker's frames and WebSocket messages to text, sans I/O
    answertext     answers and bodies of the API to text, sans I/O
    places         where the texts of a stream lie in its bytes on the wire, sans I/O
    rules          what a rule is, and the shorthand of the tables
    wallets        recovery phrases: a public list's words, and their checksum
    services       names of services that hand out keys
    plausibility   whether a value is a secret or a placeholder
    names          whether a name that holds a secret word names a secret
    needles        values of a container's own secret variables, and their forms
    candidates     what finders report; which of them stay where secrets overlap
    tokenfinder    tokens that their own shape gives away
    urlfinder      credentials in URLs, and e-mail addresses
    wordfinder     the words that rules are anchored at, in a few passes
    phrasefinder   recovery phrases behind the words that announce them
    shortoptions   passwords behind the short options of known programs
    phrases        secrets behind words that name none: sessions, SQL, logins, options
    traces         passwords among a call's arguments, and in protocols' dialogues
    judging        values that are assigned to a name, judged
    assignments    NAME = VALUE in all its forms
    sentences      secrets in sentences, behind options, below their names
    secretwords    the words that make a name a secret's
    scanner        all rules applied to one block of bytes
    ownsecrets     a container's own secrets, applied to a block beside the rules
    spans          a block's matches as bytes, which a worker sends back
    (patterns)     the table of rules, at the top of the tree
    backtracking   whether a regular expression may take far longer than its text is long
    userrules      rules from a user's file
    textscanner    one text to findings, sans I/O
    masking        secrets in a stream's bytes to asterisks, sans I/O
    records        what a line of the audit log looks like
    budgets        how many records containers and clients may cause
    streamrecords  the records of one stream, its repeats and budgets
    answerrecords  the records of secrets in answers and bodies
    heap           memory that the C library keeps, given back
    forks          what a forked child of this process lets go of
    keyfile        the key of the fingerprints, and whom a file must belong to
    baseline       known findings with reason and last day, in a file
    logfile        the log's file on disk, or standard output
    logsync        syncs that file
    failures       who is told when the audit log fails
    subscribers    who is told of each finding
    auditlog       the queue in front of the file, and its worker
    verify         reads audit logs and names what is missing
    workers        interpreters of their own that scan blocks
    scanning       what a stream delivered to findings, beside the relay, bounded
    secretsmemory  the own secrets of the containers that are read
    answerplaces   where the texts of answers stand in their bytes, sans I/O
    maskedstream   one exchange of a masking listener
    certificates   TLS's files, with errors that name them
    tlssocket      a client's TLS socket that can half-close
    remoteengine   an engine over TCP or TLS
    engine         the connection to the engine
    scoping        holds a listener's requests to its scope, by asking the engine
    answers        answers and bodies to findings, beside the relay, bounded
    diagnostics    lines for people on standard error
    settings       what the options say, as values
    sockets        system calls on sockets
    holding        reads such a body from its client
    connections    who is connected, and who goes when there is no room
    handshake      TLS with a client, and who its certificate says it is
    doorman        answers connections that are turned away
    keptconnections  kept connections: one thread waits for all, and serves short requests
    proxy          what all connections share
    objections     what is against a request by its head
    relay          one request and its answer, sans I/O
    exchange       one request and its answer on two sockets
    admin          health, metrics, the page of what runs now
    commandline    argparse, with help that fits the terminal and errors as one sentence
    values         option values from their text
    options        command line, environment and file to settings
    listeners      listeners with their policy, clients and TLS
    startup        the rules, the audit log, what `serve` checks and says at start
    reload         what SIGHUP puts in force
    healthcheck    the command `healthcheck`
    textfiles      text files as people have them: compressed, UTF-16
    logrecords     lines of audit logs, also shipped ones, to records
    seensecrets    which secrets an alert was given of, in a file
    alertcommand   the command of --on-finding as a process
    alerts         alerts of new secrets: the command, and lines on a terminal
    choice         which records a report is about
    tallies        what is counted: secrets, containers, readers
    summary        what audit logs say, in bounded memory
    terminal       the report as text
    export         the report for programs
    pagestyle      how the report's page looks
    pageparts      parts of the report's page
    pagecharts     charts of the report's page
    page           the report as a page
    report         the command `report`
    mainthread     what the main thread waits for: signals, from start to stop
    watch          the command `watch`: findings as they come
    found          what a scan has found: for people, SARIF, CSV
    scaninspect    what a container's inspect shows, to findings
    scan           the command `scan`
    maskpipe       the command `mask`
    commands       the small commands
    explain        the command `test`: what matches a line, and why the rest of it does not
    allow          the command `allow`
    helptext       the table of commands as help
    completions    what shells complete, from the same table
    manpage        the manual page, from the same table

`tests/test_layers.py` holds this order against the imports in the source.
"""

__version__ = "0.1.0"
