-- Each record once, in SQL. The table `arrivals` has what was delivered, repetitions included: one envelope a row, its `gateway`,
-- `source`, `sequence` and `data` in columns. It runs as it is in SQLite and PostgreSQL.

-- Where rows are inserted one batch after the other, and the table can have a key: what is there already stays.
CREATE TABLE readings (
    gateway  TEXT   NOT NULL,
    source   TEXT   NOT NULL,
    sequence BIGINT NOT NULL,
    arrived  TEXT   NOT NULL,
    data     TEXT   NOT NULL,
    PRIMARY KEY (gateway, source, sequence)
);

INSERT INTO readings (gateway, source, sequence, arrived, data)
SELECT gateway, source, sequence, arrived, data FROM arrivals WHERE true
ON CONFLICT (gateway, source, sequence) DO NOTHING;

-- Where a table has no key (Redshift, Athena): a view that shows one of each.
CREATE VIEW distinct_arrivals AS
SELECT gateway, source, sequence, arrived, data
FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY gateway, source, sequence ORDER BY arrived) AS nth
    FROM arrivals
) AS numbered
WHERE nth = 1;
