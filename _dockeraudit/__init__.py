"""The rooms of dockeraudit, low to high: each imports only rooms that stand above it in this list.

    errors         exceptions and exit statuses
    text           text for people: widths, plurals, control characters
    http1          HTTP/1.1 heads and bodies, sans I/O
    routes         what a request target means to the engine
    admission      requests that web pages send; repeated denials
    policy         who may do what
    streams        Docker's frames and WebSocket messages to text, sans I/O
    rules          what a rule is, and the shorthand of the tables
    services       names of services that hand out keys
    plausibility   whether a value is a secret or a placeholder
    candidates     what finders report; which of them stay where secrets overlap
    tokenfinder    tokens that their own shape gives away
    urlfinder      credentials in URLs, and e-mail addresses
    wordfinder     the words that rules are anchored at, in one pass
    assignments    NAME = VALUE in all its forms
    scanner        all rules applied to one block of bytes
    (patterns)     the table of rules, at the top of the tree
    userrules      rules from a user's file
    records        what a line of the audit log looks like
    streamrecords  the records of one stream, its repeats and budgets
    logfile        the log's file on disk
    auditlog       the queue in front of the file, and its worker
    verify         reads audit logs and names what is missing
    scanning       text to findings beside the relay, bounded
    engine         the connection to the engine
    diagnostics    lines for people on standard error
    settings       what the options say, as values
    sockets        system calls on sockets
    proxy          what all connections share
    exchange       one request and its answer
    admin          health, metrics, the page of what runs now
    options        command line, environment and file to settings
    scan           the command `scan`
    summary        what audit logs say, in bounded memory
    terminal       the report as text
    page           the report as a page
    report         the command `report`
    commands       the small commands

`tests/test_layers.py` holds this order against the imports in the source.
"""

__version__ = "0.1.0"
