from fpn_jax.train.progress import ProgressBar


def test_without_a_terminal_progress_prints_lines(capsys):
    progress = ProgressBar(10, line_seconds=0.0)
    progress.update(5, loss=0.25, images_per_second=80.4, seconds_left=65.2)
    progress.say("step 5/10  [validate]: fine")
    progress.close()
    quiet = ProgressBar(10, shown=False)
    quiet.say("nothing")
    quiet.close()
    assert capsys.readouterr().out.splitlines() == [
        "step 5/10  loss 0.2500  80 images/s  0:01:05 left",
        "step 5/10  [validate]: fine",
    ]


def test_lines_are_seconds_apart_except_for_the_last_one(capsys):
    progress = ProgressBar(10, line_seconds=1000.0)
    for step in (5, 10):
        progress.update(step, loss=0.5, images_per_second=8.0, seconds_left=0.0)
    progress.close()
    assert capsys.readouterr().out.splitlines() == [
        "step 10/10  loss 0.5000  8 images/s  0:00:00 left"
    ]
