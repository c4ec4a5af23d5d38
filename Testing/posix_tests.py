"""The tests that only a POSIX system can run: on Windows they are skipped, each by its name and with its reason."""

from __future__ import annotations

# The end of a test's name with its file, or a whole file -> what Windows does not have.
NEEDS_POSIX = {
    "test_download.py::test_a_full_disk_is_named_and_the_download_continues_when_there_is_room": "a limit for files",
    "test_headless_scene.py::test_a_segmentation_whose_last_bytes_find_no_room_is_not_written": "a limit for files",
    "test_snapshot.py::test_a_picture_that_finds_no_room_keeps_the_older_one": "a limit for files",
    "test_command_line.py::test_a_full_disk_leaves_nothing_and_keeps_the_older_file": "a limit for files",
    "test_command_line.py::test_output_that_finds_no_room_is_an_error_in_one_line": "/dev/full",
    "test_command_line.py::test_ctrl_c_in_the_middle_leaves_no_file_and_keeps_the_older_one": "SIGINT to one process",
    "test_command_line.py::test_ctrl_c_during_an_import_lets_it_end_and_is_one_line": "SIGINT to one process",
    "test_command_line.py::test_a_closed_standard_output_is_no_error_and_no_file_takes_its_number": "bash",
    "test_batch_command.py::test_the_note_of_a_row_is_not_written_through_a_link": "links without a privilege",
    "test_memory.py": "a process's memory, told by the system",
    "test_cache_command.py::test_a_link_is_removed_and_what_it_leads_to_is_not": "links without a privilege",
    "test_fine_tuning.py::test_the_process_may_be_killed_in_the_middle_of_writing_and_the_files_stay_whole": "SIGKILL",
    "test_site_dataset.py::"
    "test_an_addition_that_is_killed_leaves_the_cases_that_were_there_and_the_next_one_succeeds": "SIGKILL",
    "test_training_distributed.py": "PyTorch's Gloo without a file to meet at",
    "test_gpu.py::test_pytorchs_launcher_trains_on_every_gpu": "NCCL",
    "test_gpu.py::test_more_processes_than_gpus_are_refused_in_a_sentence": "NCCL",
    "test_python_process.py": "a PythonSlicer that is a shell script",
    "test_training_section.py": "a PythonSlicer that is a shell script",
    "test_torch_libraries.py": "dlopen",
    **{
        f"test_bad_input.py::test_bad_input_is_answered_in_one_line_and_changes_nothing[{name}]": what
        for what, names in {
            "links without a privilege": (
                *("symbolic link", "link to a folder", "train over a link to the base", "a device"),
            ),
            "/proc": ("train to nowhere", "figures to nowhere", "report to nowhere"),
            "file names that are no text": ("no text",),
        }.items()
        for name in names
    },
}


def missing_on_windows(test: str) -> str | None:
    """Say what a test needs that Windows does not have; None if it needs nothing.

    :param test: its name as pytest has it, "Testing/Core/test_x.py::test_y[parameter]".
    """
    place = test.split("::", 1)[0].rsplit("/", 1)[-1] + test[test.index("::") :]
    name, file = place.split("[", 1)[0], place.split("::", 1)[0]
    return next((NEEDS_POSIX[each] for each in (place, name, file) if each in NEEDS_POSIX), None)
