-- dockeraudit's records of many hosts in ClickHouse: a table, views, and the questions that matter.
--
--   clickhouse-client --multiquery < deploy/clickhouse.sql      makes the table and the views (again: changes nothing)
--
-- Statements end with a semicolon at a line's end. Those below "load" and "questions" are for you to run; each is named.

CREATE DATABASE IF NOT EXISTS dockeraudit;

-- One row a record. A file that is loaded twice, or a line that a collector has doubled, counts once: see FINAL below.
CREATE TABLE IF NOT EXISTS dockeraudit.records
(
    host            LowCardinality(String),
    timestamp       DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    event           LowCardinality(String),
    run             LowCardinality(String),
    seq             UInt64 CODEC(Delta, ZSTD),
    container_id    LowCardinality(String),
    container_name  LowCardinality(String),
    stream_type     LowCardinality(String),
    endpoint        LowCardinality(String),
    pattern         LowCardinality(String),
    rule            LowCardinality(String),
    severity        Enum8('' = 0, 'LOW' = 1, 'MEDIUM' = 2, 'HIGH' = 3),
    redacted_match  LowCardinality(String),
    fingerprint     String,
    count           UInt64,
    reader          LowCardinality(String), -- certificate, address, or uid and command, as `dockeraudit report` names it
    stream          UInt64,
    bytes           UInt64,
    unscanned       UInt64,
    lost_records    UInt64,
    lost_findings   UInt64,
    suppressed      UInt64,
    request         String, -- method and path of what was refused
    completes       UInt64  -- a finding_update: the seq of its finding
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (event, fingerprint, host, run, seq)
SETTINGS index_granularity = 1024;

-- A finding that is plainly no secret: a default, asterisks, an example.
ALTER TABLE dockeraudit.records ADD COLUMN IF NOT EXISTS placeholder UInt8;

-- A finding whose end had not come is what its update says it is: a private key has its fingerprint
-- only then, and a secret that a silence cut has its rule and severity.
CREATE OR REPLACE VIEW dockeraudit.findings AS
SELECT
    f.* EXCEPT (fingerprint, redacted_match, pattern, rule, severity),
    if(u.fingerprint != '', u.fingerprint, f.fingerprint) AS fingerprint,
    if(u.fingerprint != '', u.redacted_match, f.redacted_match) AS redacted_match,
    if(u.rule != '', u.pattern, f.pattern) AS pattern,
    if(u.rule != '', u.rule, f.rule) AS rule,
    if(u.rule != '', u.severity, f.severity) AS severity
FROM (SELECT * FROM dockeraudit.records FINAL WHERE event = 'finding') AS f
LEFT ANY JOIN
(
    SELECT host, run, completes, fingerprint, redacted_match, pattern, rule, severity
    FROM dockeraudit.records FINAL
    WHERE event = 'finding_update' AND (fingerprint != '' OR rule != '')
) AS u ON f.host = u.host AND f.run = u.run AND f.seq = u.completes;

-- Every credential, those on most hosts first.
CREATE OR REPLACE VIEW dockeraudit.secrets AS
SELECT
    fingerprint, any(pattern) AS pattern, max(severity) AS severity, any(redacted_match) AS redacted_match, sum(count) AS times,
    uniqExact(host) AS hosts, uniqExact(host, container_id) AS containers, uniqExact(reader) AS readers,
    min(timestamp) AS first_seen, max(timestamp) AS last_seen
FROM dockeraudit.findings
WHERE fingerprint != '' AND NOT placeholder
GROUP BY fingerprint, rule
ORDER BY severity DESC, hosts DESC, times DESC, fingerprint;

-- Where does this credential leak, and who saw it: dockeraudit.where_is(fingerprint = '0123456789abcdef')
CREATE OR REPLACE VIEW dockeraudit.where_is AS
SELECT host, any(container_name) AS container, container_id, reader, any(pattern) AS pattern, sum(count) AS times, min(timestamp) AS first_seen, max(timestamp) AS last_seen
FROM dockeraudit.findings
WHERE fingerprint = {fingerprint:String}
GROUP BY host, container_id, reader
ORDER BY host, container, times DESC;

-- Who reads on how many hosts, how much, and how many credentials they saw.
CREATE OR REPLACE VIEW dockeraudit.readers AS
SELECT
    reader, uniqExact(host) AS hosts, countIf(event = 'stream_close') AS streams, sumIf(bytes, event = 'stream_close') AS bytes,
    uniqExactIf(fingerprint, event = 'finding') AS secrets, max(timestamp) AS last_seen
FROM dockeraudit.records FINAL
WHERE event IN ('finding', 'stream_close')
GROUP BY reader
ORDER BY secrets DESC, bytes DESC, reader;

-- What hosts did not record or not scan, and what is missing between what they recorded and what has arrived here: seq
-- goes up by one in each run, so `missing` is what was lost, changed or held back on the way.
CREATE OR REPLACE VIEW dockeraudit.gaps AS
SELECT
    host, sum(records_gone) AS lost_records, sum(findings_gone) AS lost_findings, sum(bytes_gone) AS unscanned_bytes,
    sum(findings_counted) AS suppressed_findings, sum(last_seq - first_seq + 1 - arrived - gone_between) AS missing
FROM
(
    SELECT
        host, run, min(seq) AS first_seq, max(seq) AS last_seq, count() AS arrived,
        sum(lost_records) AS records_gone, sum(lost_findings) AS findings_gone,
        records_gone - argMin(lost_records, seq) AS gone_between, -- what a first gap counts was before it
        sumIf(unscanned, event = 'stream_close') AS bytes_gone, sum(suppressed) AS findings_counted
    FROM dockeraudit.records FINAL
    GROUP BY host, run
)
GROUP BY host
HAVING (lost_records, lost_findings, unscanned_bytes, suppressed_findings, missing) != (0, 0, 0, 0, 0)
ORDER BY missing DESC, lost_records DESC, unscanned_bytes DESC;

-- Hosts that went silent: each running dockeraudit writes `stats` every ten minutes at the latest, so
-- dockeraudit.silent(minutes = 30) has those that are stopped, cut off, or gone.
CREATE OR REPLACE VIEW dockeraudit.silent AS
SELECT host, max(timestamp) AS last_record, dateDiff('minute', last_record, now64(6)) AS minutes_ago, argMax(event, (timestamp, seq)) AS last_event
FROM dockeraudit.records
GROUP BY host
HAVING last_record < now64(6) - toIntervalMinute({minutes:UInt32})
ORDER BY last_record;

-- What was refused where, and to whom.
CREATE OR REPLACE VIEW dockeraudit.refusals AS
SELECT reader, request, rule, uniqExact(host) AS hosts, sum(count) AS times, max(timestamp) AS last_seen
FROM dockeraudit.records FINAL
WHERE event = 'denied'
GROUP BY reader, request, rule
ORDER BY times DESC, reader, request;

-- load: the collector's files, one folder a host. Again and again: what is there already counts once.
-- A line that is no JSON (a torn one) is left out here; `dockeraudit verify` on the file names it.
INSERT INTO dockeraudit.records
SELECT
    extract(_path, '([^/]+)/[^/]+$') AS host,
    parseDateTime64BestEffortOrZero(r.timestamp, 6, 'UTC'), r.event, r.run, r.seq, r.container_id, r.container_name, r.stream_type, r.endpoint,
    r.pattern, r.rule, if(r.severity IN ('LOW', 'MEDIUM', 'HIGH'), r.severity, ''), r.redacted_match, r.fingerprint, r.count,
    multiIf(
        c.address != '', c.address || if(c.certificate != '', ' (' || c.certificate || ')', ''),
        c.listener = 'scan', 'dockeraudit scan (uid ' || toString(c.uid) || ')',
        c.listener = '', 'unknown',
        'uid ' || toString(c.uid) || ' (' || if(c.command != '', c.command, 'unknown command') || ')'
    ) AS reader,
    r.stream, r.bytes, r.unscanned, r.records, r.matches,
    if(r.event = 'suppressed' AND c.listener != '', 0, arraySum(mapValues(r.counts))),
    trim(r.method || ' ' || r.path), r.finding, r.placeholder
FROM
(
    SELECT
        _path, line,
        JSONExtract(line, 'Tuple(timestamp String, event String, run String, seq UInt64, container_id String, container_name String, stream_type String, endpoint String, pattern String, rule String, severity String, redacted_match String, fingerprint String, count UInt64, stream UInt64, bytes UInt64, unscanned UInt64, records UInt64, matches UInt64, counts Map(String, UInt64), placeholder Bool, method String, path String, finding UInt64, client Tuple(listener String, address String, certificate String, uid UInt32, command String))') AS r,
        r.client AS c
    FROM file('/var/log/dockeraudit-fleet/*/audit.log', 'LineAsString', 'line String')
    WHERE isValidJSON(line)
);

-- questions

-- one secret on many hosts
SELECT * FROM dockeraudit.secrets LIMIT 20;

-- where does it leak, and who saw it
SELECT * FROM dockeraudit.where_is(fingerprint = '0123456789abcdef');

-- who read most
SELECT * FROM dockeraudit.readers LIMIT 20;

-- hosts with gaps
SELECT * FROM dockeraudit.gaps;

-- hosts that went silent
SELECT * FROM dockeraudit.silent(minutes = 30);

-- refused requests
SELECT * FROM dockeraudit.refusals LIMIT 20;
