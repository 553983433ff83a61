"""What BenchmarkPeers compares with: a Celery application whose one task runs /bin/true."""
import os
import subprocess

from celery import Celery

app = Celery("bench", broker=os.environ["BROKER"])
app.conf.update(
    task_ignore_result=True,  # no result backend
    task_acks_late=True,  # a worker that dies loses no task
    worker_enable_remote_control=False,
    worker_max_tasks_per_child=int(os.environ["TASKS_PER_CHILD"]) or None,
)


@app.task(name="run")
def run():
    subprocess.run(["/bin/true"], check=True)
