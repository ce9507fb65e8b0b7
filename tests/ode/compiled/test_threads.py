"""Tests of ode/compiled/threads.py."""

import threading
import weakref

import pytest
import torch

from nodebench.ode.compiled.threads import in_threads


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    torch.set_num_threads(request.param)
    return request.param


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("items", [1, 2, 3, 4, 7, 8, 9, 128])
def test_each_item_is_taken_once_in_whole_units(items, together, threads):
    taken, lock = [], threading.Lock()

    def kernel(part, name):
        assert name == "argument"
        with lock:
            taken.append(part)

    in_threads(kernel, items, "argument", together=together)
    assert [i for first, last in sorted(taken) for i in range(first, last)] == list(range(items))
    assert len(taken) == min(threads, max(1, items // together))
    assert all(first % together == 0 for first, _ in taken)
    assert all(last - first >= min(together, items) for first, last in taken)


def test_nothing_keeps_the_arguments_of_a_call_that_has_ended():
    class Array:
        """What a weak reference can be made to."""

    torch.set_num_threads(2)
    array = Array()
    seen = weakref.ref(array)
    in_threads(lambda _part, _array: None, 2, array)
    del array
    assert seen() is None


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_in_any_thread_is_the_callers_once_all_have_ended(failing):
    torch.set_num_threads(2)
    ended = []

    def kernel(part):
        if part[0] == failing:
            raise ZeroDivisionError
        threading.Event().wait(0.05)
        ended.append(part)

    with pytest.raises(ZeroDivisionError):
        in_threads(kernel, 2)
    assert ended == [(1 - failing, 2 - failing)]
    in_threads(lambda part: ended.append(part), 2)  # the threads go on
    assert len(ended) == 3
