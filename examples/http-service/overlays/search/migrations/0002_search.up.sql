CREATE INDEX notes_body_search ON notes USING gin (to_tsvector('simple', body));
