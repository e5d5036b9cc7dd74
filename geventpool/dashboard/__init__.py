"""The page: all pools of all processes, live and with a memory of a day.

`geventpool dashboard` serves it alone; `geventpool.flask.dashboard` and `geventpool.django.dashboard` have
it in an application. Nothing is asked of the processes: what they publish is read.
"""
