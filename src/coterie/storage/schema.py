"""The tables of a profile, version by version."""

from __future__ import annotations

from typing import Final

from coterie.storage.database import Schema

_VERSION_1: Final = """
CREATE TABLE profile (
    key INTEGER PRIMARY KEY CHECK (key = 1), instance BLOB NOT NULL, step INTEGER NOT NULL,
    restored INTEGER NOT NULL);
INSERT INTO profile VALUES (1, randomblob(16), 0, 0);

-- One key per secret value. Rows are never deleted, only overwritten: see vault.py.
CREATE TABLE slot (key INTEGER PRIMARY KEY, secret BLOB NOT NULL);

CREATE TABLE space (key INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE entry (
    space INTEGER NOT NULL REFERENCES space(key), key BLOB NOT NULL, slot INTEGER, value BLOB NOT NULL,
    PRIMARY KEY (space, key)) WITHOUT ROWID;

CREATE TABLE intent (
    number INTEGER PRIMARY KEY AUTOINCREMENT, conversation BLOB NOT NULL, kind TEXT NOT NULL,
    state TEXT NOT NULL, slot INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE INDEX intent_conversation ON intent(conversation, number);

CREATE TABLE message (
    position INTEGER PRIMARY KEY AUTOINCREMENT, conversation BLOB NOT NULL, message_id BLOB NOT NULL,
    sender TEXT NOT NULL, sent_at INTEGER NOT NULL, received_at INTEGER NOT NULL, kind TEXT NOT NULL,
    text TEXT NOT NULL, body BLOB NOT NULL, state INTEGER NOT NULL,
    UNIQUE (conversation, message_id));
CREATE INDEX message_order ON message(conversation, position);
CREATE TABLE seen (
    position INTEGER NOT NULL REFERENCES message(position) ON DELETE CASCADE, user TEXT NOT NULL,
    number INTEGER NOT NULL, PRIMARY KEY (position, user)) WITHOUT ROWID;

CREATE VIRTUAL TABLE word USING fts5(
    text, content='message', content_rowid='position', tokenize='unicode61 remove_diacritics 2');
INSERT INTO word(word, rank) VALUES ('secure-delete', 1);
CREATE TRIGGER message_added AFTER INSERT ON message BEGIN
    INSERT INTO word(rowid, text) VALUES (new.position, new.text);
END;
CREATE TRIGGER message_removed AFTER DELETE ON message BEGIN
    INSERT INTO word(word, rowid, text) VALUES ('delete', old.position, old.text);
END;
CREATE TRIGGER message_changed AFTER UPDATE OF text ON message BEGIN
    INSERT INTO word(word, rowid, text) VALUES ('delete', old.position, old.text);
    INSERT INTO word(rowid, text) VALUES (new.position, new.text);
END;
"""

SCHEMA: Final = Schema(application_id=0x436F7431, versions=(_VERSION_1,))
