from dispatcher.live import ids


def test_session_ids_are_unguessable() -> None:
    made = {ids.session_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(session_id) == 32 for session_id in made)


def test_no_session_id_looks_like_an_option() -> None:
    assert not any(ids.session_id().startswith("-") for _ in range(1000))
