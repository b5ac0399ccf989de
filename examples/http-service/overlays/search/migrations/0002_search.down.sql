DROP INDEX notes_body_search;
